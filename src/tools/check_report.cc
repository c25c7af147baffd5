#include "ringway/tools/check_report.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

namespace ringway::tools {
namespace {

using check::Row;
using check::Verdict;

std::string_view name_of(check::Level level) {
  switch (level) {
    case check::Level::must:
      return "MUST";
    case check::Level::should:
      return "SHOULD";
    case check::Level::may:
      return "MAY";
  }
  return "";
}

size_t count(const std::vector<Row>& rows, Verdict verdict) {
  return static_cast<size_t>(
      std::ranges::count(rows, verdict, [](const Row& row) { return row.finding.verdict; }));
}

size_t faults(const std::vector<Row>& rows) {
  return static_cast<size_t>(std::ranges::count_if(rows, check::is_fault));
}

size_t successes(const std::vector<check::HostileRow>& attacks) {
  return static_cast<size_t>(
      std::ranges::count(attacks, Verdict::fail, [](const auto& row) { return row.finding.verdict; }));
}

std::string json_of(const std::vector<Row>& rows, const std::vector<check::HostileRow>& attacks,
                    const std::string& name) {
  nlohmann::ordered_json all = {{"checked", name}, {"requirements", nlohmann::ordered_json::array()}};
  for (const Row& row : rows) {
    all["requirements"].push_back({{"number", row.requirement->number},
                                   {"level", name_of(row.requirement->level)},
                                   {"section", row.requirement->section},
                                   {"sentence", row.requirement->sentence},
                                   {"verdict", name_of(row.finding.verdict)},
                                   {"detail", row.finding.detail}});
  }
  for (const check::HostileRow& row : attacks) {
    all["hostile"].push_back({{"number", row.number},
                              {"input", row.input},
                              {"verdict", name_of(row.finding.verdict)},
                              {"detail", row.finding.detail}});
  }
  all["faults"] = faults(rows) + successes(attacks);
  return all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string escaped(std::string_view text) {
  static const std::map<char, std::string_view> entities = {
      {'<', "&lt;"}, {'>', "&gt;"}, {'&', "&amp;"}, {'"', "&quot;"}};
  std::string out;
  for (const char c : text) {
    const auto entity = entities.find(c);
    if (entity != entities.end()) {
      out += entity->second;
    } else if (static_cast<unsigned char>(c) >= ' ') {
      out += c;
    }
  }
  return out;
}

// A recommendation that is not followed is no failure there, but told.
std::string junit_of(const std::vector<Row>& rows, const std::vector<check::HostileRow>& attacks,
                     const std::string& name) {
  const size_t skipped = count(rows, Verdict::not_offered) + count(rows, Verdict::not_testable);
  std::string text = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" "
      "skipped=\"{}\">\n",
      escaped("vhost-user " + name), rows.size() + attacks.size(), faults(rows) + successes(attacks),
      skipped);
  for (const Row& row : rows) {
    const std::string detail = escaped(row.finding.detail);
    text += fmt::format("  <testcase classname=\"{}\" name=\"N{:03} {}\" time=\"{:.3f}\">",
                        escaped(row.requirement->section), row.requirement->number,
                        escaped(row.requirement->sentence), row.seconds);
    if (check::is_fault(row)) {
      text += fmt::format("<failure message=\"{}\"/>", detail);
    } else if (row.finding.verdict == Verdict::fail) {
      text += fmt::format("<system-out>{} is not followed: {}</system-out>", name_of(row.requirement->level),
                          detail);
    } else if (row.finding.verdict != Verdict::pass) {
      text += fmt::format("<skipped message=\"{}: {}\"/>", name_of(row.finding.verdict), detail);
    }
    text += "</testcase>\n";
  }
  for (const check::HostileRow& row : attacks) {
    const bool failed = row.finding.verdict == Verdict::fail;
    text += fmt::format("  <testcase classname=\"hostile\" name=\"{} {}\">", row.number, escaped(row.input));
    if (failed) text += fmt::format("<failure message=\"{}\"/>", escaped(row.finding.detail));
    text += "</testcase>\n";
  }
  return text + "</testsuite>\n";
}

bool write_all(const std::string& path, const char* mode, const std::string& text) {
  std::FILE* const file = std::fopen(path.c_str(), mode);
  if (file == nullptr) return false;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return (std::fclose(file) == 0) && written;
}

std::string beside_of(const std::string& path) { return fmt::format("{}.{}", path, ::getpid()); }

// A file appears when it is whole. What is no file, a pipe or a device, is written to and left as it is.
bool write_file(const std::string& path, const std::string& text) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) return write_all(path, "we", text);
  const std::string beside = beside_of(path);
  if (write_all(beside, "wxe", text) && std::rename(beside.c_str(), path.c_str()) == 0) return true;
  if (errno != EEXIST) ::unlink(beside.c_str());
  return false;
}

// No check is there: the table has the reason.
bool is_never_seen(const Row& row) {
  const check::Requirement& one = *row.requirement;
  return row.finding.verdict == Verdict::not_testable &&
         (row.finding.detail == one.back_end.reason || row.finding.detail == one.front_end.reason);
}

// "N011 N012: it binds front-ends": what was left out, by reason.
void print_unseen(const std::vector<Row>& rows) {
  std::map<std::string, std::string> numbers;
  for (const Row& row : rows) {
    if (is_never_seen(row)) numbers[row.finding.detail] += fmt::format(" N{:03}", row.requirement->number);
  }
  if (!numbers.empty()) fmt::print("\nnot to be seen from outside:\n");
  for (const auto& [reason, which] : numbers) fmt::print("  {}:{}\n", reason, which);
}

}  // namespace

void print_row(const Row& row) {
  if (is_never_seen(row)) return;
  fmt::print("N{:03}  {:17} {:6}  {}\n", row.requirement->number, name_of(row.finding.verdict),
             name_of(row.requirement->level), row.requirement->sentence);
  if (!row.finding.detail.empty()) fmt::print("      {}\n", row.finding.detail);
  std::fflush(stdout);
}

void print_attack(const check::HostileRow& row) {
  const bool failed = row.finding.verdict == Verdict::fail;
  fmt::print("{:8} {}  {}{}{}\n", row.number, failed ? "FAIL" : "    ", row.input,
             row.finding.detail.empty() ? "" : ": ", row.finding.detail);
  std::fflush(stdout);
}

bool can_write_report(const std::string& path) {
  struct stat status{};
  if (path.empty()) return true;
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    return ::access(path.c_str(), W_OK) == 0;
  const std::string beside = beside_of(path);
  if (!write_all(beside, "wxe", "")) return false;
  return ::unlink(beside.c_str()) == 0;
}

int report(const std::vector<Row>& rows, const std::vector<check::HostileRow>& attacks,
           const ReportOptions& options) {
  if (options.json) {
    fmt::print("{}\n", json_of(rows, attacks, options.name));
  } else {
    print_unseen(rows);
    const size_t failed = count(rows, Verdict::fail);
    fmt::print(
        "\n{} requirements: {} pass, {} fail ({} of them a MUST), {} not offered, {} not testable here\n",
        rows.size(), count(rows, Verdict::pass), failed, faults(rows), count(rows, Verdict::not_offered),
        count(rows, Verdict::not_testable));
    if (!attacks.empty()) fmt::print("{} hostile inputs, {} succeeded\n", attacks.size(), successes(attacks));
  }
  bool whole = true;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    fmt::print(stderr, "ringway check: the results cannot be printed\n");
    whole = false;
  }
  if (!options.junit.empty() && !write_file(options.junit, junit_of(rows, attacks, options.name))) {
    fmt::print(stderr, "ringway check: {} cannot be written\n", options.junit);
    whole = false;
  }
  if (!whole) return 2;
  return faults(rows) + successes(attacks) > 0 ? 1 : 0;
}

std::string why_not_checked(const std::string& path, const Error& error, double seconds) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) return "this is not a socket";
  switch (error.fault == Fault::os ? error.os_error : 0) {
    case ENOENT:
      return "there is nothing: does the back-end run?";
    case ECONNREFUSED:
      return "nobody listens: a back-end that has ended left it behind";
    case EACCES:
      return "you may not connect to it";
    case EAGAIN:
      return "the back-end does not accept connections: it is busy with others";
    case EPROTOTYPE:
      return "this is no stream socket, so no vhost-user back-end is there";
    default:
      break;
  }
  if (error.fault == Fault::violation || error.fault == Fault::gone) {
    return fmt::format(
        "{}: it does not answer as a vhost-user back-end does, or is busy with another front-end (an answer "
        "may take {} s)",
        error.to_string(), seconds);
  }
  return error.to_string();
}

}  // namespace ringway::tools
