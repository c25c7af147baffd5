// Job: what a bench does with one queue, or with queues that belong together, turn by turn (drive.h). Owned
// by the thread that drives it; only finished() may be asked by others.
#pragma once

#include <cstdint>

#include "ringway/base/result.h"

namespace ringway::tools {

enum class Phase : uint8_t {
  fill,     // a disk: every block is written once
  measure,  // the work itself, until it is stopped
  check,    // a disk: every block that was written is read once
};

class Job {
 public:
  virtual ~Job() = default;
  virtual void begin(Phase phase, int64_t now) = 0;
  // What was counted so far is forgotten.
  virtual void clear(int64_t now) = 0;
  // Counting ends: what was counted until now is kept for whoever asks afterwards.
  virtual void count(int64_t now) = 0;
  // One turn. True: something had come back or was started. `stop`: start nothing new.
  virtual Result<bool> turn(bool stop) = 0;
  // Nothing is waited for, and nothing more will be started.
  [[nodiscard]] virtual bool at_rest(bool stop) const = 0;
  // Before sleeping; true: do not sleep.
  [[nodiscard]] virtual bool prepare_to_sleep() = 0;
  virtual void wake_up() = 0;

  // What the back-end owes us.
  [[nodiscard]] virtual uint64_t in_flight() const = 0;
  // What came back since the beginning. Any thread.
  [[nodiscard]] virtual uint64_t finished() const = 0;
};

// Nanoseconds of the monotonic clock.
[[nodiscard]] int64_t now_ns();

}  // namespace ringway::tools
