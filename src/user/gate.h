// Gate: where the threads that receive wait between two messages while it is closed, so that somebody else
// may take over what they read from. Nothing of the next message has been read then. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "ringway/base/unique_fd.h"

namespace ringway::user {

class Gate {
 public:
  static Result<std::shared_ptr<Gate>> make();

  // Those who wait for a message come here at once, those who serve one when they have done so.
  void close();
  void open();
  // Until as many as `expected` says wait here; it is asked again and again. False: not by `deadline`.
  bool wait_for(const std::function<size_t()>& expected, std::chrono::steady_clock::time_point deadline);

  // For those who receive. Readable while the gate is closed.
  [[nodiscard]] int fd() const { return event_.get(); }
  void pass();  // returns when the gate is open

 private:
  explicit Gate(UniqueFd event) : event_(std::move(event)) {}
  const UniqueFd event_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  size_t waiting_ = 0;
};

}  // namespace ringway::user
