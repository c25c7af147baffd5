// Drops: frames that a device did not pass on, by reason. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace ringway::net {

enum class Drop : uint8_t {
  runt,         // transmitted: shorter than its headers
  giant,        // transmitted: longer than the MTU or than any frame may be
  malformed,    // transmitted: its header asks for what was not negotiated or lies outside
  disabled,     // transmitted on a ring that is disabled
  unfinished,   // to be received: with work left that the driver does not accept
  never_fits,   // to be received: longer than all of the driver's buffers together
  other_full,   // to be received: belongs to another queue, which has no buffers
  short_buffer  // not a frame: a receive buffer that does not even hold a header
};
inline constexpr size_t drop_reasons = 8;
inline constexpr std::array<const char*, drop_reasons> drop_names = {
    "dropped: transmitted runts",        "dropped: transmitted giants",
    "dropped: transmitted malformed",    "dropped: transmitted, disabled",
    "dropped: work left for the driver", "dropped: longer than all buffers",
    "dropped: no buffers in its queue",  "receive buffers without room"};

class Drops {
 public:
  void count(Drop reason) { counts_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t of(Drop reason) const {
    return counts_[static_cast<size_t>(reason)].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<uint64_t>, drop_reasons> counts_{};
};

}  // namespace ringway::net
