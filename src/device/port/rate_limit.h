// RateLimit: so many units a second, with short bursts above it. A token bucket, kept as the time at which it
// will be full again, in one atomic. Any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace ringway::port {

class RateLimit {
 public:
  // 0: no limit. A fiftieth of a second may come at once, and `burst` units in any case.
  RateLimit(uint64_t per_second, uint64_t burst)
      : per_second_(per_second),
        depth_(per_second == 0 ? 0 : std::max<uint64_t>(second / 50, time_of(burst))) {}

  explicit operator bool() const { return per_second_ != 0; }
  // False, and nothing is taken, if there are no units left. `now`: nanoseconds.
  bool take(uint64_t now, uint64_t units) {
    if (per_second_ == 0) return true;
    uint64_t full = full_at_.load(std::memory_order_relaxed);
    uint64_t next = 0;
    do {
      next = std::max(full, now) + time_of(units);
      if (next - now > depth_) return false;
    } while (!full_at_.compare_exchange_weak(full, next, std::memory_order_relaxed));
    return true;
  }

 private:
  static constexpr uint64_t second = 1'000'000'000;  // ns
  [[nodiscard]] uint64_t time_of(uint64_t units) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(units) * second / per_second_);
  }

  const uint64_t per_second_;
  const uint64_t depth_;  // ns
  std::atomic<uint64_t> full_at_ = 0;
};

}  // namespace ringway::port
