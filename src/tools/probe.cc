// ringway probe: what a back-end is.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "ringway/tools/command.h"
#include "ringway/tools/interview.h"
#include "ringway/tools/probe_report.h"

namespace ringway::tools {
namespace {

struct Options {
  InterviewOptions interview;
  std::string type;
  double timeout = 5;  // seconds
  bool json = false;
};

int probe(Options& options) {
  options.interview.patience = std::chrono::milliseconds(static_cast<int64_t>(options.timeout * 1000));
  if (!options.type.empty()) options.interview.type = find_device_type(options.type);
  const auto findings = interview(options.interview);
  if (!findings) {
    fmt::print(stderr, "ringway probe: {}\n", findings.error());
    return 1;
  }
  fmt::print("{}", options.json ? probe_json(*findings) : probe_text(*findings));
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace

void add_probe(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* const command = app.add_subcommand("probe", "say what a vhost-user back-end is");
  std::set<std::string> types;
  for (const DeviceType& type : device_types()) types.emplace(type.name);
  command->add_option("SOCKET", options->interview.socket, "path of the back-end's socket")->required();
  command->add_flag("--json", options->json, "print JSON");
  command->add_option("--timeout", options->timeout, "seconds to wait for each answer (5)")
      ->check(CLI::Range(0.01, 3600.0))
      ->option_text("SECONDS");
  command->add_option("--type", options->type, "what the device is, if you know")
      ->check(CLI::IsMember(types));
  command->add_flag("--hostile", options->interview.hostile,
                    "also send requests that a back-end must refuse: a bad one may not survive them");
  command->callback([options, &run] { run = [options] { return probe(*options); }; });
}

}  // namespace ringway::tools
