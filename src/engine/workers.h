// Workers: the worker threads that all devices of a process share, and one thread for control work that no
// message asked for. Any thread.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "ringway/loop/loop.h"

namespace ringway::engine {

class Workers {
 public:
  struct Options {
    unsigned count = 1;
    std::vector<int> cpus;  // worker i is pinned to cpus[i % size]; empty: not pinned
    loop::Polling polling = loop::Polling::adaptive;
    bool use_io_uring = true;
  };
  static Result<std::unique_ptr<Workers>> start(const Options& options);

  [[nodiscard]] size_t count() const { return loops_.size(); }
  [[nodiscard]] loop::Loop& worker(size_t index) { return *loops_[index % loops_.size()]; }
  // The first worker of a new device, so that devices with few queues spread over all workers.
  [[nodiscard]] size_t next_start() { return next_++; }
  // May wait for workers, which a worker must never do for another.
  [[nodiscard]] loop::Loop& control() { return *control_; }

 private:
  std::vector<std::unique_ptr<loop::Loop>> loops_;
  std::unique_ptr<loop::Loop> control_;
  std::atomic<size_t> next_ = 0;
};

}  // namespace ringway::engine
