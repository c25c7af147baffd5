// ringway trace: what passes between a front-end and a back-end.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <set>
#include <string>

#include "ringway/tools/back_end.h"
#include "ringway/tools/command.h"
#include "ringway/tools/file_limit.h"
#include "ringway/tools/parse.h"
#include "ringway/tools/termination.h"
#include "ringway/tools/trace_pcap.h"
#include "ringway/tools/trace_report.h"
#include "ringway/tools/trace_tap.h"
#include "ringway/user/place.h"
#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

constexpr std::chrono::seconds time_to_flush{5};
constexpr std::chrono::seconds rest_of_message{5};  // after which what has come of it is told

struct Options {
  std::string listen;
  std::string back_end;
  std::string pcap;
  std::string type;
  double late = 5;  // seconds
  bool json = false;
  bool explain = false;
};

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway trace: {}\n", sentence);
  return 1;
}

void complain(const std::string& sentence) { fail(sentence); }

// The file with its beginning written, so that a place that takes nothing is known before anything passes.
Parsed<UniqueFd> create_pcap(const std::string& path) {
  constexpr int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK;
  UniqueFd fd(::open(path.c_str(), flags | O_EXCL, 0644));
  const bool is_ours = bool(fd);
  if (!fd && errno == EEXIST) fd.reset(::open(path.c_str(), flags, 0644));
  if (!fd && errno == ENXIO) return std::unexpected(fmt::format("nobody reads from the pipe {}", path));
  if (!fd) return std::unexpected(fmt::format("cannot create {}: {}", path, std::strerror(errno)));
  const std::string begin = pcap_begin();
  const ssize_t written = ::write(fd.get(), begin.data(), begin.size());
  if (written == static_cast<ssize_t>(begin.size())) return fd;
  const int error = written < 0 ? errno : ENOSPC;
  if (is_ours) ::unlink(path.c_str());
  return std::unexpected(fmt::format("cannot write {}: {}", path, std::strerror(error)));
}

// A copy, or a place for what nobody wants.
UniqueFd standard_output() {
  UniqueFd fd(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0));
  if (!fd) fd.reset(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  return fd;
}

// The socket that we listen on, for as long as there is one.
struct Place {
  UniqueFd listening;
  user::SocketFile file;
  ~Place() { file.remove(); }
};

Parsed<std::unique_ptr<Place>> listen(const std::string& path) {
  auto listening = user::listen_at(path);
  if (!listening) return std::unexpected(fmt::format("{}: {}", path, listening.error().to_string()));
  auto file = user::SocketFile::of(path);
  if (!file) return std::unexpected(fmt::format("{}: {}", path, file.error().to_string()));
  return std::make_unique<Place>(*std::move(listening), *std::move(file));
}

int trace(const Options& options) {
  allow_many_fds();
  const auto termination = Termination::make();
  if (!termination) return fail(termination.error().to_string());
  auto peer = reach(options.back_end);
  if (!peer) return fail(peer.error());
  auto place = listen(options.listen);
  if (!place) return fail(place.error());
  std::unique_ptr<TraceSink> pcap;
  if (!options.pcap.empty()) {
    auto file = create_pcap(options.pcap);
    if (!file) return fail(file.error());
    pcap = std::make_unique<TraceSink>(*std::move(file), options.pcap, complain);
  }
  TraceSink text(standard_output(), "standard output", complain);
  const auto patience = std::chrono::milliseconds(static_cast<int64_t>(options.late * 1000));
  TraceReport report({.type = options.type.empty() ? nullptr : find_device_type(options.type),
                      .json = options.json,
                      .explain = options.explain,
                      .patience = patience},
                     text, pcap.get());
  Tap((*place)->listening.get(), options.back_end, std::move(peer->fd), rest_of_message, report)
      .run(termination->fd());
  place->reset();
  const bool text_is_whole = text.flush(time_to_flush);
  const bool pcap_is_whole = pcap == nullptr || pcap->flush(time_to_flush);
  return text_is_whole && pcap_is_whole ? 0 : 1;
}

}  // namespace

void add_trace(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* const command =
      app.add_subcommand("trace", "show what passes between a front-end and a back-end");
  std::set<std::string> types;
  for (const DeviceType& type : device_types()) types.emplace(type.name);
  command->add_option("LISTEN", options->listen, "path of the socket to listen on")->required();
  command->add_option("BACKEND", options->back_end, "path of the back-end's socket")->required();
  command->add_flag("--json", options->json, "print a JSON object for each message");
  command->add_flag("--explain", options->explain, "say what looks wrong");
  command->add_option("--late", options->late, "seconds after which a reply is late (5)")
      ->check(CLI::Range(0.01, 3600.0))
      ->option_text("SECONDS");
  command->add_option("--pcap", options->pcap, "write the messages to this file too, as pcapng")
      ->option_text("FILE");
  command->add_option("--type", options->type, "what the device is, for the names of its features")
      ->check(CLI::IsMember(types));
  command->callback([options, &run] { run = [options] { return trace(*options); }; });
}

}  // namespace ringway::tools
