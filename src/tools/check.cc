// ringway check: whether a back-end, or a front-end, keeps to the specification.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "ringway/base/log.h"
#include "ringway/check/exit_status.h"
#include "ringway/check/hostile.h"
#include "ringway/check/runner.h"
#include "ringway/check/socket_target.h"
#include "ringway/tools/check_front_end.h"
#include "ringway/tools/check_report.h"
#include "ringway/tools/command.h"

namespace ringway::tools {
namespace {

struct BackEndArguments {
  std::string socket;
  std::string device;
  std::vector<unsigned> only;
  std::string junit;
  std::string restart;
  double timeout = 5;   // seconds
  double quiet = 0.15;  // seconds
  bool json = false;
  bool hostile = false;
};

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway check: {}\n", sentence);
  return 2;
}

int check_back_end(const BackEndArguments& arguments) {
  log::set_level(log::Level::error);
  if (!can_write_report(arguments.junit)) return fail(arguments.junit + " cannot be written");
  check::SocketTarget target(arguments.socket, milliseconds_of(arguments.timeout), arguments.restart);
  const check::Options options{
      .kind = check::find_kind(arguments.device),
      .only = {arguments.only.begin(), arguments.only.end()},
      .patience = {.answer = milliseconds_of(arguments.timeout), .quiet = milliseconds_of(arguments.quiet)}};
  const auto rows = check::check_back_end(target, options, arguments.json ? check::Tell{} : print_row);
  if (!rows) {
    const auto failure = target.failure();
    return fail(fmt::format("{}: {}", arguments.socket,
                            failure ? "the command " + check::describe_end(*failure)
                                    : why_not_checked(arguments.socket, rows.error(), arguments.timeout)));
  }
  std::vector<check::HostileRow> attacks;
  if (arguments.hostile) {
    attacks = check::attack_back_end(target, options, arguments.json ? check::TellHostile{} : print_attack);
  }
  return report(*rows, attacks, {.json = arguments.json, .junit = arguments.junit, .name = arguments.socket});
}

// As reports name them, N051, or just 51.
std::string number_of(const std::string& word) {
  const size_t digits = word.find_first_not_of("0", word.starts_with('N') ? 1 : 0);
  return digits == std::string::npos ? word : word.substr(digits);
}

void add_only(CLI::App& command, std::vector<unsigned>& only) {
  command.add_option("--only", only, "only these requirements, by number")
      ->transform(number_of)
      ->check(CLI::Range(1U, unsigned{check::requirement_count}))
      ->delimiter(',')
      ->option_text("NUMBER ...");
}

void add_back_end(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<BackEndArguments>();
  CLI::App* const command = app.add_subcommand("back-end", "check a vhost-user back-end");
  std::set<std::string> names;
  for (const check::Kind& kind : check::kinds()) names.emplace(kind.name);
  command->add_option("SOCKET", arguments->socket, "path of the back-end's socket")->required();
  command->add_option("--device", arguments->device, "what the device is; any: only what holds for all")
      ->check(CLI::IsMember(names))
      ->required();
  add_only(*command, arguments->only);
  command->add_option("--junit", arguments->junit, "write a JUnit report")->option_text("FILE");
  command->add_flag("--json", arguments->json, "print JSON");
  command->add_flag("--hostile", arguments->hostile,
                    "afterwards send what no front-end may send: a bad back-end may not survive it");
  command
      ->add_option("--restart", arguments->restart,
                   "how the back-end is started, and started again when it is gone")
      ->option_text("COMMAND");
  command->add_option("--timeout", arguments->timeout, "seconds to wait for each answer (5)")
      ->check(CLI::Range(0.01, 600.0))
      ->option_text("SECONDS");
  command->add_option("--quiet", arguments->quiet, "seconds in which nothing must happen (0.15)")
      ->check(CLI::Range(0.01, 60.0))
      ->option_text("SECONDS");
  command->callback([arguments, &run] { run = [arguments] { return check_back_end(*arguments); }; });
}

struct FrontEndArguments {
  FrontEndCheck check;
  std::vector<unsigned> only;
  std::string junit;
  double timeout = 30;  // seconds
  bool json = false;
};

int check_front_end(FrontEndArguments& arguments) {
  log::set_level(log::Level::error);
  if (!can_write_report(arguments.junit)) return fail(arguments.junit + " cannot be written");
  arguments.check.only = {arguments.only.begin(), arguments.only.end()};
  arguments.check.arrival = milliseconds_of(arguments.timeout);
  const auto found = check_front_end(arguments.check);
  if (!found) return fail(found.error());
  std::vector<check::HostileRow> attacks;
  for (const WrongReply& one : found->wrong_replies) attacks.push_back({"N025", one.what, one.finding});
  if (!arguments.json) {
    for (const check::Row& row : found->rows) print_row(row);
    for (const check::HostileRow& row : attacks) print_attack(row);
  }
  return report(found->rows, attacks,
                {.json = arguments.json, .junit = arguments.junit, .name = arguments.check.socket});
}

void add_front_end(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<FrontEndArguments>();
  CLI::App* const command =
      app.add_subcommand("front-end", "play a back-end, a disk, and check the front-end that comes");
  command->add_option("LISTEN", arguments->check.socket, "path of the socket that front-ends connect to")
      ->required();
  command
      ->add_option("--start", arguments->check.start,
                   "how the front-end is started, anew for each back-end that is played")
      ->option_text("COMMAND");
  add_only(*command, arguments->only);
  command->add_option("--junit", arguments->junit, "write a JUnit report")->option_text("FILE");
  command->add_flag("--json", arguments->json, "print JSON");
  command->add_flag("--hostile", arguments->check.hostile, "also play back-ends whose replies are wrong");
  command->add_option("--timeout", arguments->timeout, "seconds to wait for a front-end (30)")
      ->check(CLI::Range(0.1, 600.0))
      ->option_text("SECONDS");
  command->callback([arguments, &run] { run = [arguments] { return check_front_end(*arguments); }; });
}

}  // namespace

void add_check(CLI::App& app, Run& run) {
  CLI::App* const command =
      app.add_subcommand("check", "say whether a back-end or a front-end keeps to the specification");
  command->require_subcommand(1);
  add_back_end(*command, run);
  add_front_end(*command, run);
}

}  // namespace ringway::tools
