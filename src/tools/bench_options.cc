#include "ringway/tools/bench_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace ringway::tools {

void CommonBenchOptions::add_to(CLI::App& command, RunOptions& run) {
  command.add_option("--runtime", run.run_time, "seconds to measure (5)")->check(CLI::Range(0.01, 1e6));
  command.add_option("--warmup", run.warm_up, "seconds before that are not counted (0.5)")
      ->check(CLI::Range(0.0, 1e6));
  command.add_option("--timeout", run.patience, "seconds a request or an answer may take (30)")
      ->check(CLI::Range(0.1, 3600.0));
  command.add_option("--threads", run.threads, "threads that drive the queues (one each, but leaving a CPU)")
      ->check(CLI::Range(1, 256));
  command.add_option("--cpus", cpus, "CPUs for these threads, like 0,2-3")->option_text("LIST");
  command.add_flag("--interrupt,!--poll", run.interrupts,
                   "sleep until the back-end calls; the default is to poll");
  command.add_flag("--json", json, "print JSON, and no live line");
}

Parsed<void> CommonBenchOptions::complete(RunOptions& run) const {
  auto list = parse_cpu_list(cpus);
  if (!list) return std::unexpected(list.error());
  run.cpus = *std::move(list);
  return {};
}

int bench_fails(const std::string& sentence) {
  fmt::print(stderr, "ringway bench: {}\n", sentence);
  return 1;
}

LiveLine::LiveLine(const CommonBenchOptions& options, Words words)
    : live_(!options.json && ::isatty(STDERR_FILENO) != 0), words_(std::move(words)) {}

LiveLine::~LiveLine() {
  if (live_) fmt::print(stderr, "\r\033[K");
}

void LiveLine::show(const Progress& progress) const {
  if (live_) fmt::print(stderr, "\r\033[K{}", words_(progress));
}

int end_bench(const std::string& report, const std::vector<std::string>& errors, Ending ending) {
  fmt::print("{}", report);
  const bool printed = std::fflush(stdout) == 0;
  for (const std::string& error : errors) bench_fails(error);
  if (ending == Ending::hung) return 3;
  return printed && ending == Ending::good ? 0 : 1;
}

}  // namespace ringway::tools
