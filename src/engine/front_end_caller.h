// FrontEndCaller: takes what workers and models have to say to the front-end and says it from a thread of its
// own, so that a front-end that does not read can never block a worker. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "ringway/vhost/handler.h"

namespace ringway::engine {

class FrontEndCaller {
 public:
  FrontEndCaller() = default;
  ~FrontEndCaller() { disconnect(); }
  FrontEndCaller(const FrontEndCaller&) = delete;
  FrontEndCaller& operator=(const FrontEndCaller&) = delete;

  // Control thread. Replaces an earlier channel. After an error there is none.
  Result<> connect(std::shared_ptr<vhost::FrontEnd> front_end);
  // Control thread. Drops what was not sent yet and waits for the call that is under way.
  void disconnect();

  // Control thread. False: something is still to be said at `deadline`.
  bool wait_until_said(std::chrono::steady_clock::time_point deadline);
  // Any thread. Dropped without a channel, if the same message already waits, or if the front-end has not
  // read for long.
  // `refused` is called on the caller's thread if the front-end did not take it; it is not called when it was
  // dropped.
  void post(vhost::FrontEndRequest request, std::function<void()> refused = {});

 private:
  struct Message {
    vhost::FrontEndRequest request;
    std::function<void()> refused;
  };
  void run(vhost::FrontEnd& front_end);
  static constexpr size_t max_waiting = 4096;
  std::shared_ptr<vhost::FrontEnd> front_end_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::condition_variable said_;
  bool calling_ = false;
  std::deque<Message> waiting_;
  bool open_ = false;
  std::thread thread_;
};

}  // namespace ringway::engine
