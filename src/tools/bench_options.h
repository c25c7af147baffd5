// What all subcommands of `ringway bench` have in common on the command line. Any thread.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "ringway/tools/bench_watch.h"
#include "ringway/tools/command.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {

struct CommonBenchOptions {
  std::string cpus;
  bool json = false;

  void add_to(CLI::App& command, RunOptions& run);
  // What CLI11 cannot check by itself.
  [[nodiscard]] Parsed<void> complete(RunOptions& run) const;
};

// Prints a sentence to standard error; the exit status.
int bench_fails(const std::string& sentence);

// A live line on a terminal, unless JSON is wanted.
class LiveLine {
 public:
  using Words = std::function<std::string(const Progress&)>;
  LiveLine(const CommonBenchOptions& options, Words words);
  ~LiveLine();
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;
  void show(const Progress& progress) const;

 private:
  const bool live_;
  const Words words_;
};

// Prints the report and then the errors; the exit status: 0, 1 if the result is not good, 3 if the bench has
// waited in vain.
enum class Ending : uint8_t { good, bad, hung };
int end_bench(const std::string& report, const std::vector<std::string>& errors, Ending ending);
template <class Result>
[[nodiscard]] Ending ending_of(const Result& result) {
  if (result.hung) return Ending::hung;
  return result.good() ? Ending::good : Ending::bad;
}

// Subcommands of bench.
void add_bench_blk(CLI::App& bench, Run& run);
void add_bench_net(CLI::App& bench, Run& run);

}  // namespace ringway::tools
