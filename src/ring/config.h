// RingConfig: everything a ring is made of before it runs. Owned by the control thread; becomes a Ring by a
// move.
#pragma once

#include <cstdint>

#include "ringway/base/result.h"
#include "ringway/memory/view.h"

namespace ringway::ring {

inline constexpr uint32_t max_size = 32768;  // VIRTIO "Virtqueues": the largest ring, in entries

// Where a ring continues. vhost-user "Vring descriptor indices for split / packed virtqueues".
struct RingBase {
  uint16_t avail = 0;
  uint16_t used = 0;
  bool avail_wrap = true;  // packed only
  bool used_wrap = true;   // packed only
  bool operator==(const RingBase&) const = default;

  // The 32-bit value of SET_VRING_BASE and GET_VRING_BASE. A split ring's used index is not in it: it equals
  // avail.
  static RingBase from_wire(uint32_t value, bool packed);
  [[nodiscard]] uint32_t to_wire(bool packed) const;
};

// What was negotiated about a ring's format.
struct Format {
  bool packed = false;      // VIRTIO_F_RING_PACKED
  bool indirect = false;    // VIRTIO_F_INDIRECT_DESC
  bool event_idx = false;   // VIRTIO_F_EVENT_IDX
  bool in_order = false;    // VIRTIO_F_IN_ORDER
  bool big_endian = false;  // legacy split rings only (SET_VRING_ENDIAN)

  static Format of(uint64_t features, bool big_endian);
};

struct RingConfig {
  uint32_t size = 0;  // entries
  Format format;
  RingBase base;
  // Split: descriptor table, avail ring, used ring. Packed: descriptor ring, driver and device event
  // suppression.
  memory::Window desc;
  memory::Window driver;
  memory::Window device;
  // Its region of the in-flight area; none: what is in flight is not noted (inflight.h).
  memory::Window inflight;

  // Bytes that the three areas take.
  [[nodiscard]] static uint64_t desc_bytes(uint32_t size, const Format& format);
  [[nodiscard]] static uint64_t driver_bytes(uint32_t size, const Format& format);
  [[nodiscard]] static uint64_t device_bytes(uint32_t size, const Format& format);
  [[nodiscard]] bool is_tracked() const { return inflight.data() != nullptr; }
  [[nodiscard]] bool memory_is_broken() const {
    return desc.broken() || driver.broken() || device.broken() || inflight.broken();
  }
  // A split ring begins where its used ring ends, whatever the base says: for chains that are used in order,
  // after a back-end has gone with some that it had taken. Of a ring that was stopped both are the same.
  void resume_at_used_index();
  // Refuses whatever cannot run: size, alignment, base and areas are checked here, together, once.
  [[nodiscard]] Result<> validate() const;
};

}  // namespace ringway::ring
