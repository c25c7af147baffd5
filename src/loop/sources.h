// Sources: which sources of a loop are awake, and when one is parked. Owned by the loop's thread.
#pragma once

#include <memory>
#include <vector>

#include "ringway/loop/loop.h"
#include "ringway/loop/patience.h"
#include "ringway/loop/poller.h"

namespace ringway::loop {

// What the loop knows of one source.
struct SourceState {
  Source* source = nullptr;  // null: removed
  Watch* watch = nullptr;
  Watch* fd_watch = nullptr;
  bool awake = true;
  bool worked = true;   // when last polled, or has not been polled since it woke
  bool idle = false;    // without work since idle_since
  bool parked = false;  // since its last work or wake()
  Loop::Clock::time_point idle_since;
  Patience patience;
  size_t index = 0;  // in all_
};

class Sources {
 public:
  explicit Sources(Polling polling) : polling_(polling) {}

  SourceState& add(Source& source);
  void remove(SourceState& state);
  [[nodiscard]] bool empty() const { return all_.empty(); }
  [[nodiscard]] bool all_parked() const { return awake_.empty(); }

  // Polls every source that is awake, then parks those that have been without work for too long. True if
  // there was work.
  bool turn();
  // A notification came: it is polled once, and parked again at once if there was no work.
  void signalled(SourceState& state);
  // Something happened that makes work likely: it is polled for a window.
  void wake(SourceState& state);

 private:
  void found_work(SourceState& state);
  void park_the_idle();
  [[nodiscard]] bool out_of_patience(const SourceState& state, Loop::Clock::time_point now) const;

  const Polling polling_;
  std::vector<std::unique_ptr<SourceState>> all_;
  std::vector<SourceState*> awake_;                    // null: removed or parked in this turn
  std::vector<std::unique_ptr<SourceState>> removed_;  // may still be in use in this turn
  bool changed_ = false;                               // there are nulls in awake_, or removed ones
};

}  // namespace ringway::loop
