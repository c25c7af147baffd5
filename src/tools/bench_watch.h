// BenchWatch: the clock, the signals and the back-end, while a drive runs through its phases. Owned by the
// thread that made it, before it starts others: SIGINT and SIGTERM are blocked meanwhile and end the run.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/tools/drive.h"

namespace ringway::tools {

// How a run goes, whatever it measures.
struct RunOptions {
  double warm_up = 0.5;     // seconds
  double run_time = 5;      // seconds
  double patience = 30;     // seconds that anything may take
  unsigned threads = 0;     // 0: as many as jobs, but one CPU is left for the back-end
  std::vector<int> cpus;    // thread i is pinned to cpus[i % size]
  bool interrupts = false;  // sleep until the back-end calls, instead of polling

  // Whether it is as long ago as anything may take; nanoseconds of the monotonic clock.
  [[nodiscard]] bool has_waited_since(int64_t begin) const;
  // With the number of threads as it shall be for so many jobs.
  void complete(unsigned jobs);
  [[nodiscard]] DriveOptions drive() const;
};

// About once a second while it runs.
struct Progress {
  std::string_view phase;
  double seconds = 0;  // since it began
  double rate = 0;     // what came back per second, since the last call
};

// Cores in use while it was measured.
struct CpuUse {
  std::optional<double> driver;
  std::optional<double> back_end;
};

// A number that nobody has chosen.
[[nodiscard]] uint64_t any_seed();

class BenchWatch {
 public:
  using Show = std::function<void(const Progress&)>;
  using Trouble = std::function<std::optional<std::string>()>;  // a sentence, if there is any

  // For a back-end that may be followed by another when it dies.
  struct Succession {
    std::function<bool()> gone;
    std::function<std::expected<void, std::string>()> reconnect;  // one try
  };

  explicit BenchWatch(const Show& show);
  ~BenchWatch();
  BenchWatch(const BenchWatch&) = delete;
  BenchWatch& operator=(const BenchWatch&) = delete;

  // Drive and options outlive it or the next call.
  void look_after(Drive& drive, const RunOptions& options, Trouble trouble,
                  std::optional<Succession> succession = {});

  // Runs a phase until all jobs are at rest.
  void sweep(Phase phase, std::string_view name);
  // Warms up, measures, and lets what is in flight end. `back_ends`: processes.
  CpuUse measure(const std::vector<pid_t>& back_ends);

  [[nodiscard]] bool going_on() const { return errors_.empty() && !interrupted_; }
  [[nodiscard]] bool interrupted() const { return interrupted_; }
  // What was waited for has not come in time; errors() says what.
  [[nodiscard]] bool hung() const { return hung_; }
  [[nodiscard]] uint64_t reconnects() const { return reconnects_; }
  [[nodiscard]] const std::vector<std::string>& errors() const { return errors_; }
  void fail(std::string sentence);

 private:
  void watch(std::string_view phase, std::optional<double> seconds);
  [[nodiscard]] bool has_gone() const { return succession_ && succession_->gone(); }
  void reconnect();
  [[nodiscard]] bool wait_until(int64_t begin, std::optional<double> seconds) const;
  [[nodiscard]] bool wait(const timespec& time) const;
  bool interrupt();
  void hang(std::string sentence);
  void end_phase();

  const Show show_;
  sigset_t signals_{};
  sigset_t before_{};
  Drive* drive_ = nullptr;
  const RunOptions* options_ = nullptr;
  Trouble trouble_;
  std::optional<Succession> succession_;
  uint64_t reconnects_ = 0;
  bool interrupted_ = false;
  bool hung_ = false;
  int64_t interrupted_at_ = 0;       // nanoseconds
  std::vector<std::string> errors_;  // sentences
};

}  // namespace ringway::tools
