// Patience: for how long a source without work is still polled before it is parked. Owned by the loop's
// thread.
#pragma once

#include <algorithm>
#include <chrono>

namespace ringway::loop {

// A parked source costs its peer a notification and us a wake-up; a polled one costs a core. So a source is
// polled for a window after its last work, and each pause that outlasted the window teaches:
//   work came back within max_window    parking was a mistake: the window doubles, from first_window up to
//   max_window; work came back later                polling was a waste: the window is quartered, and below
//   first_window it is 0.
// Pauses that end inside the window teach nothing: polling has paid. So a queue whose pauses are shorter than
// max_window is parked a handful of times and then never again; one with long pauses loses its window in a
// few of them and then costs nothing between requests; a burst after a long silence wins it back within four
// mistakes. A wake-up without work does not begin a new window.
class Patience {
 public:
  using Duration = std::chrono::nanoseconds;
  static constexpr Duration first_window = std::chrono::microseconds(16);
  static constexpr Duration max_window = std::chrono::microseconds(128);

  explicit Patience(Duration window = first_window) : window_(window) {}

  [[nodiscard]] Duration window() const { return window_; }

  // A pause during which the source was parked has ended with work.
  void learn(Duration pause) {
    if (pause <= max_window) {
      window_ = std::clamp(window_ * 2, first_window, max_window);
    } else {
      window_ /= 2;
      if (window_ < first_window) window_ = Duration::zero();
    }
  }

 private:
  Duration window_;
};

}  // namespace ringway::loop
