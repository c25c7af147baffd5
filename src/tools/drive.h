// Drive: threads that turn the jobs of a bench until they are at rest. Owned by the thread that made it; the
// jobs belong to the threads from start() to finish().
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/base/result.h"
#include "ringway/tools/job.h"

namespace ringway::tools {

struct DriveOptions {
  unsigned threads = 1;
  std::vector<int> cpus;    // thread i is pinned to cpus[i % size]; empty: not pinned
  bool interrupts = false;  // sleep on the call signals while nothing comes back; else poll
};

class Drive {
 public:
  struct Part {
    Job* job = nullptr;
    std::vector<const Signal*> calls;  // by which the back-end says that something has come back
  };
  Drive(std::vector<Part> parts, DriveOptions options);
  ~Drive();

  void start(Phase phase);
  // Everything counted so far in this phase is forgotten.
  void count_anew() { epoch_.fetch_add(1, std::memory_order_relaxed); }
  // Starts nothing new; what was counted until now is what the jobs keep.
  void stop() { stop_.store(true, std::memory_order_relaxed); }
  // Does not wait for what is in flight either.
  void abandon() { abandon_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool at_rest() const { return running_.load(std::memory_order_acquire) == 0; }
  // Joins the threads; an error if a ring broke.
  Result<> finish();

  [[nodiscard]] uint64_t finished() const;   // requests since the first start
  [[nodiscard]] uint64_t in_flight() const;  // after finish()
  // A CPU that could not be had.
  [[nodiscard]] std::optional<int> unavailable_cpu() const;

 private:
  struct Thread {
    std::vector<Part> parts;
    std::optional<int> cpu;
    bool pinned = true;
    std::optional<Error> error;
    std::jthread thread;
  };

  void run(Thread& self, Phase phase);
  Result<> turn_all(Thread& self);
  static void count(Thread& self);
  static void sleep(std::span<const Part> parts);

  const DriveOptions options_;
  std::vector<Thread> threads_;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> abandon_ = false;
  std::atomic<unsigned> epoch_ = 0;
  std::atomic<unsigned> running_ = 0;
};

}  // namespace ringway::tools
