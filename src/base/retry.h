// retry: for what somebody else is about to let go of.
#pragma once

#include <chrono>
#include <thread>

namespace ringway {

// The kernel closes the files of a process that was killed a moment after the process is gone, if io_uring
// used them; this is the longest such moment.
inline constexpr std::chrono::milliseconds last_moment{1000};

// Calls `attempt` until it is true, or the time is over; what it said last. Blocks the calling thread.
template <class Attempt>
bool retry_for(std::chrono::milliseconds limit, Attempt attempt) {
  constexpr std::chrono::milliseconds pause{10};
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!attempt()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

}  // namespace ringway
