// Timers of one loop, in the order of their times. Owned by the loop's thread.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "ringway/loop/loop.h"

namespace ringway::loop {

class Timers {
 public:
  using Clock = Loop::Clock;

  [[nodiscard]] bool empty() const { return timers_.empty(); }
  uint64_t add(Clock::time_point when, Loop::Task task) {
    if (spare_.empty()) {
      timers_.emplace(std::pair(when, ++last_), std::move(task));
      return last_;
    }
    spare_.key() = std::pair(when, ++last_);
    spare_.mapped() = std::move(task);
    timers_.insert(std::move(spare_));
    return last_;
  }
  void cancel(uint64_t number) {
    std::erase_if(timers_, [number](const auto& timer) { return timer.first.second == number; });
  }
  [[nodiscard]] std::optional<Clock::time_point> next() const {
    if (timers_.empty()) return std::nullopt;
    return timers_.begin()->first.first;
  }
  // Runs what is due; a timer that is added meanwhile waits for the next call. False if nothing was due.
  bool fire(Clock::time_point now) {
    const uint64_t newest = last_;
    bool any = false;
    for (auto due = find_due(now, newest); due != timers_.end(); due = find_due(now, newest)) {
      auto timer = timers_.extract(due);
      Loop::Task task = std::move(timer.mapped());
      spare_ = std::move(timer);
      task();
      any = true;
    }
    return any;
  }

 private:
  using Map = std::map<std::pair<Clock::time_point, uint64_t>, Loop::Task>;
  Map::iterator find_due(Clock::time_point now, uint64_t newest) {
    auto timer = timers_.begin();
    while (timer != timers_.end() && timer->first.first <= now && timer->first.second > newest) ++timer;
    return timer != timers_.end() && timer->first.first <= now ? timer : timers_.end();
  }
  Map timers_;
  Map::node_type spare_;  // of the last timer that was due, so that one that begins again allocates nothing
  uint64_t last_ = 0;
};

}  // namespace ringway::loop
