// Tap: sits between front-ends and a back-end and tells of every message that passes, on the main channel and
// on the back-end channel, without changing any. Each front-end gets a connection to the back-end of its own.
// One thread, the one that calls run().
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/base/unique_fd.h"
#include "ringway/tools/trace_pump.h"

namespace ringway::tools {

class TapObserver {
 public:
  using Clock = SeenMessage::Clock;
  virtual ~TapObserver() = default;
  virtual void began(uint32_t session) = 0;
  // A front-end that could not be served: there is no back-end.
  virtual void turned_away(const std::string& sentence) = 0;
  virtual void saw(SeenMessage message) = 0;
  // `first`: who has closed the connection first; nobody, if the tap ends.
  virtual void ended(uint32_t session, std::optional<Side> first) = 0;
  // Called at least when the time it has returned is reached.
  virtual std::optional<Clock::time_point> tick(Clock::time_point now) = 0;
  // No sessions are there. True: run() returns.
  virtual bool is_done() = 0;
};

class Tap {
 public:
  static constexpr size_t max_sessions = 64;  // at once; others wait to be accepted

  // `listening` does not block and stays the caller's. `kept`: a connection to the back-end for the first
  // front-end; may be none. Part of a message is told after `patience` if the rest does not come.
  Tap(int listening, std::string back_end, UniqueFd kept, std::chrono::milliseconds patience,
      TapObserver& observer);
  ~Tap();

  // Until `stop` can be read, or the observer is done.
  void run(int stop);

 private:
  class Link;
  class Session;
  using Clock = SeenMessage::Clock;

  void accept();
  void reap();
  int time_to_wait(Clock::time_point now);

  const int listening_;
  const std::string back_end_;
  UniqueFd kept_;
  const std::chrono::milliseconds patience_;
  TapObserver& observer_;
  std::vector<std::unique_ptr<Session>> sessions_;
  uint32_t next_session_ = 1;
  std::optional<Clock::time_point> deaf_until_;  // after running out of file descriptors
};

}  // namespace ringway::tools
