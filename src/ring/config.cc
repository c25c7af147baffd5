#include "ringway/ring/config.h"

#include <linux/virtio_config.h>

#include <bit>

#include "ringway/ring/inflight.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {
namespace {

constexpr unsigned wire_wrap = 15;  // bit of the wrap counter in each half
constexpr uint32_t wire_index = 0x7fff;

bool has(uint64_t features, unsigned bit) { return (features >> bit & 1) != 0; }

Result<> check_area(const char* name, const memory::Window& area, uint64_t bytes, size_t alignment) {
  if (area.data() == nullptr) return std::unexpected(refused("ring area has no address").error().about(name));
  if (area.size() < bytes) {
    return std::unexpected(
        refused("ring area is too small for the ring size", area.size()).error().about(name));
  }
  const auto address = reinterpret_cast<uintptr_t>(area.data());
  if (address % alignment != 0) {
    return std::unexpected(refused("ring area is misaligned", address % alignment).error().about(name));
  }
  return {};
}

Result<> check_size(uint32_t size, const Format& format) {
  if (size == 0 || size > max_size) return refused("ring size is not between 1 and 32768", size);
  if (!format.packed && !std::has_single_bit(size))
    return refused("split ring size is not a power of two", size);
  return {};
}

Result<> check_packed_base(const RingBase& base, uint32_t size) {
  if (base.avail >= size) return refused("packed available index is not in the ring", base.avail);
  if (base.used >= size) return refused("packed used index is not in the ring", base.used);
  const PackedPlace avail{.position = base.avail, .wrap = base.avail_wrap};
  const PackedPlace used{.position = base.used, .wrap = base.used_wrap};
  if (avail.distance_from(used, size) > size)
    return refused("packed used index is ahead of the available index", base.used);
  return {};
}

}  // namespace

RingBase RingBase::from_wire(uint32_t value, bool packed) {
  if (!packed) return {.avail = static_cast<uint16_t>(value), .used = static_cast<uint16_t>(value)};
  // Some front-ends send the available half alone. Index 0 in an even lap is rare, and nothing is in flight
  // when a ring starts, so the used half is then the same.
  if (value >> 16 == 0) value |= value << 16;
  return {.avail = static_cast<uint16_t>(value & wire_index),
          .used = static_cast<uint16_t>(value >> 16 & wire_index),
          .avail_wrap = (value >> wire_wrap & 1) != 0,
          .used_wrap = (value >> (16 + wire_wrap) & 1) != 0};
}

uint32_t RingBase::to_wire(bool packed) const {
  if (!packed) return avail;
  const uint32_t first = avail | uint32_t{avail_wrap} << wire_wrap;
  const uint32_t second = used | uint32_t{used_wrap} << wire_wrap;
  return first | second << 16;
}

Format Format::of(uint64_t features, bool big_endian) {
  return {.packed = has(features, VIRTIO_F_RING_PACKED),
          .indirect = has(features, VIRTIO_RING_F_INDIRECT_DESC),
          .event_idx = has(features, VIRTIO_RING_F_EVENT_IDX),
          .in_order = has(features, VIRTIO_F_IN_ORDER),
          .big_endian = big_endian};
}

uint64_t RingConfig::desc_bytes(uint32_t size, const Format& format) {
  (void)format;  // 16 bytes an entry in both
  return uint64_t{size} * descriptor_bytes;
}

uint64_t RingConfig::driver_bytes(uint32_t size, const Format& format) {
  if (format.packed) return event_bytes;
  return entries_at + uint64_t{size} * avail_entry_bytes + (format.event_idx ? 2 : 0);
}

uint64_t RingConfig::device_bytes(uint32_t size, const Format& format) {
  if (format.packed) return event_bytes;
  return entries_at + uint64_t{size} * used_entry_bytes + (format.event_idx ? 2 : 0);
}

void RingConfig::resume_at_used_index() {
  if (format.packed) return;
  uint16_t used = 0;
  memory::copy_out(&used, device.data() + index_at, sizeof used);
  base.avail = ByteOrder(format.big_endian)(used);
}

Result<> RingConfig::validate() const {
  TRY(check_size(size, format));
  if (format.packed && format.big_endian) return refused("packed rings are little-endian");
  if (format.packed) TRY(check_packed_base(base, size));
  TRY(check_area("descriptor area", desc, desc_bytes(size, format), VRING_DESC_ALIGN_SIZE));
  TRY(check_area("driver area", driver, driver_bytes(size, format),
                 format.packed ? event_bytes : VRING_AVAIL_ALIGN_SIZE));
  TRY(check_area("device area", device, device_bytes(size, format),
                 format.packed ? event_bytes : VRING_USED_ALIGN_SIZE));
  if (!is_tracked()) return {};
  return check_area("in-flight area", inflight, inflight_bytes(size, format.packed), inflight_alignment);
}

}  // namespace ringway::ring
