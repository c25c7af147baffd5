// TraceSink: where a trace is written. A thread of its own writes, so that neither a slow reader nor a full
// disk holds up whoever traces; what is written is whole records, also at the end of a file that could not
// take more. put() from one thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class TraceSink {
 public:
  static constexpr size_t max_waiting = 64 << 20;  // bytes; more are dropped

  // `name` for sentences. `on_failure` is told in a sentence that something is lost, on either thread: once
  // if nothing more can be written, and once if the reader is too slow.
  TraceSink(UniqueFd fd, std::string name, std::function<void(const std::string&)> on_failure);
  ~TraceSink();  // what still waits is written if it can be at once

  void put(std::string record);
  [[nodiscard]] bool has_failed() const;  // could not write, or had to drop something
  [[nodiscard]] bool is_idle() const;     // everything is written, or nothing will be
  // Whether all was written in time.
  bool flush(std::chrono::milliseconds patience);

 private:
  void run();
  bool write(const std::string& record);
  void take_back(size_t part) const;

  const UniqueFd fd_;
  const std::string name_;
  const std::function<void(const std::string&)> on_failure_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> waiting_;
  size_t waiting_bytes_ = 0;
  bool dropped_ = false;
  bool writing_ = false;
  bool failed_ = false;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace ringway::tools
