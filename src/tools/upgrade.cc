// ringway upgrade: has a process that serves replaced by a new program, under the feet of its guests.
#include <fmt/format.h>
#include <sys/types.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "ringway/tools/command.h"
#include "ringway/tools/upgrade_request.h"

namespace ringway::tools {
namespace {

struct Arguments {
  pid_t pid = 0;
  std::string binary;
  unsigned time_to_open = 60;
};

int upgrade(const Arguments& arguments) {
  std::string binary;
  if (!arguments.binary.empty()) binary = std::filesystem::absolute(arguments.binary);
  const auto answer = ask_for_upgrade(arguments.pid, binary, std::chrono::seconds(arguments.time_to_open));
  if (!answer) {
    fmt::print(stderr, "ringway upgrade: {}\n", answer.error());
    return 2;
  }
  if (answer->moved)
    fmt::print("{}\n", answer->sentence);
  else
    fmt::print(stderr, "ringway upgrade: process {} was not replaced: {}\n", arguments.pid, answer->sentence);
  return answer->moved ? 0 : 1;
}

}  // namespace

void add_upgrade(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("upgrade", "replace a process that serves by a new program, at work");
  command->add_option("--pid", arguments->pid, "the process")->required()->check(CLI::PositiveNumber);
  command->add_option("--binary", arguments->binary,
                      "the new program; else what is at the old one's path now");
  command->add_option("--time-to-open", arguments->time_to_open, "seconds that it may take to open all disks")
      ->check(CLI::Range(1, 3600));
  command->final_callback([arguments, &run] { run = [arguments] { return upgrade(*arguments); }; });
}

}  // namespace ringway::tools
