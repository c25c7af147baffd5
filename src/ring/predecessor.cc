#include "ringway/ring/predecessor.h"

#include "ringway/memory/shared_bytes.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {
namespace {

// The driver's ring still holds what it made available before, but what waits has been written over it.
uint32_t doubtful_split(const RingConfig& config) {
  const ByteOrder order(config.format.big_endian);
  const std::byte* const driver = config.driver.data();
  const std::byte* const device = config.device.data();
  const auto used = order.load<uint16_t>(device + index_at);
  const auto available = order.load<uint16_t>(driver + index_at, std::memory_order_acquire);
  const uint32_t waiting = static_cast<uint16_t>(available - used);
  if (used == 0 || waiting == 0 || waiting > config.size) return 0;
  for (uint32_t back = 1; back <= config.size - waiting; ++back) {
    const uint32_t entry = static_cast<uint16_t>(used - back) & (config.size - 1);
    const auto head = order.load<uint16_t>(driver + entries_at + entry * avail_entry_bytes);
    const auto id = order.load<uint32_t>(device + entries_at + entry * used_entry_bytes);
    if (id != head) return waiting;
  }
  return waiting == config.size ? waiting : 0;
}

// What was answered has been written over what was made available: nothing is left to compare.
uint32_t doubtful_packed(const RingConfig& config) {
  PackedPlace place{.position = config.base.avail, .wrap = config.base.avail_wrap};
  if (place == PackedPlace()) return 0;
  uint32_t waiting = 0;
  for (uint32_t entries = 0; entries < config.size; ++entries, place.advance(1, config.size)) {
    const auto flags = ByteOrder().load<uint16_t>(
        config.desc.data() + place.position * descriptor_bytes + packed_flags_at, std::memory_order_acquire);
    if (!has_packed_flags(flags, place.available_flags())) break;
    if ((flags & VRING_DESC_F_NEXT) == 0) ++waiting;
  }
  return waiting;
}

}  // namespace

uint32_t doubtful_chains(const RingConfig& config) {
  return config.format.packed ? doubtful_packed(config) : doubtful_split(config);
}

}  // namespace ringway::ring
