// The bytes of split and packed rings, as VIRTIO lays them out, for both halves. Any thread.
// Every field is read by one load into a local; nothing here reads a byte twice. "Split Virtqueues: The
// Virtqueue Descriptor Table / Available Ring / Used Ring", "Packed Virtqueues: The Virtqueue Descriptor
// Format".
#pragma once

#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY 1
#endif
#include <linux/virtio_ring.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "ringway/memory/shared_bytes.h"

namespace ringway::ring {

inline constexpr size_t descriptor_bytes = 16;

// Split available and used rings: u16 flags, u16 idx, entries, u16 event index of the other side.
inline constexpr size_t flags_at = 0;
inline constexpr size_t index_at = 2;
inline constexpr size_t entries_at = 4;
inline constexpr size_t avail_entry_bytes = 2;
inline constexpr size_t used_entry_bytes = 8;

// Packed descriptors.
inline constexpr size_t packed_length_at = 8;
inline constexpr size_t packed_id_at = 12;
inline constexpr size_t packed_flags_at = 14;
inline constexpr uint16_t packed_avail_flag = 1U << VRING_PACKED_DESC_F_AVAIL;
inline constexpr uint16_t packed_used_flag = 1U << VRING_PACKED_DESC_F_USED;

// Packed event suppression, read and written as one word: u16 offset and wrap counter, u16 flags.
inline constexpr size_t event_bytes = 4;

// A private copy of one descriptor. Not initialised: dozens of them are made for every batch.
struct Descriptor {
  uint64_t address;
  uint32_t length;  // bytes
  uint16_t flags;
  uint16_t last;  // split: index of the next descriptor; packed: buffer id

  bool operator==(const Descriptor&) const = default;
  // Packed descriptors have the last two fields in the other order.
  [[nodiscard]] Descriptor swapped_end() const { return {address, length, last, flags}; }
  [[nodiscard]] bool continues() const { return (flags & VRING_DESC_F_NEXT) != 0; }
  [[nodiscard]] bool writable() const { return (flags & VRING_DESC_F_WRITE) != 0; }
  [[nodiscard]] bool indirect() const { return (flags & VRING_DESC_F_INDIRECT) != 0; }
};

// The byte order of a ring's fields: little-endian, or big-endian for a legacy driver of such a machine.
class ByteOrder {
 public:
  constexpr explicit ByteOrder(bool big_endian = false)
      : swapped_(big_endian != (std::endian::native == std::endian::big)) {}
  template <class T>
  [[nodiscard]] T operator()(T value) const {
    return swapped_ ? std::byteswap(value) : value;
  }
  template <class T>
  [[nodiscard]] T load(const std::byte* at, std::memory_order order = std::memory_order_relaxed) const {
    return (*this)(memory::load<T>(at, order));
  }
  template <class T>
  void store(std::byte* at, T value, std::memory_order order = std::memory_order_relaxed) const {
    memory::store<T>(at, (*this)(value), order);
  }

  // A split descriptor as two words. `at` is aligned to 8 bytes.
  [[nodiscard]] Descriptor load_descriptor(const std::byte* at) const {
    return unpack(memory::load<uint64_t>(at), memory::load<uint64_t>(at + 8));
  }
  // The same where nothing promises alignment: in indirect tables.
  [[nodiscard]] Descriptor load_unaligned_descriptor(const std::byte* at) const {
    uint64_t words[2];
    memory::copy_out(words, at, sizeof words);
    return unpack(words[0], words[1]);
  }
  void store_descriptor(std::byte* at, const Descriptor& from) const {
    memory::store<uint64_t>(at, (*this)(from.address));
    memory::store<uint64_t>(at + 8, second_word(from.length, from.flags, from.last));
  }
  // The word behind the address, field by field as they lie in memory.
  [[nodiscard]] uint64_t second_word(uint32_t length, uint16_t third, uint16_t fourth) const {
    const uint64_t behind = join(uint64_t{(*this)(third)}, uint64_t{(*this)(fourth)}, 16);
    return join((*this)(length), behind, 32);
  }
  [[nodiscard]] Descriptor unpack(uint64_t first, uint64_t second) const {
    return {.address = (*this)(first),
            .length = (*this)(static_cast<uint32_t>(second >> shift(0, 32))),
            .flags = (*this)(static_cast<uint16_t>(second >> shift(32, 16))),
            .last = (*this)(static_cast<uint16_t>(second >> shift(48, 16)))};
  }

 private:
  // Where a field of `width` bits that begins `offset` bits into memory lies in a 64-bit word of this
  // machine.
  static constexpr unsigned shift(unsigned offset, unsigned width) {
    return std::endian::native == std::endian::little ? offset : 64 - offset - width;
  }
  // Two neighbours in memory of `width` bits each.
  static constexpr uint64_t join(uint64_t first, uint64_t second, unsigned width) {
    return std::endian::native == std::endian::little ? first | second << width : first << width | second;
  }
  bool swapped_;
};

// Between showing something to the other side and asking whether it wants to be told. A load that follows may
// not be done before a store that precedes: the one reordering that release and acquire allow.
inline void full_fence() {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wtsan"
  std::atomic_thread_fence(std::memory_order_seq_cst);
#pragma GCC diagnostic pop
}

// Whether an index that went from `before` to `now` has passed `event` (VIRTIO_F_EVENT_IDX, split rings).
inline bool passed(uint16_t event, uint16_t before, uint16_t now) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

// A place in a packed ring: position and wrap counter.
struct PackedPlace {
  uint32_t position = 0;
  bool wrap = true;
  bool operator==(const PackedPlace&) const = default;

  // Moves on by `count` <= size entries, or back.
  void advance(uint32_t count, uint32_t size) {
    position += count;
    if (position >= size) {
      position -= size;
      wrap = !wrap;
    }
  }
  void retreat(uint32_t count, uint32_t size) {
    if (position < count) {
      position += size;
      wrap = !wrap;
    }
    position -= count;
  }
  // Entries from `from` to here, going forward through both laps: 0 to 2 * size - 1.
  [[nodiscard]] uint32_t distance_from(const PackedPlace& from, uint32_t size) const {
    const uint32_t here = position + (wrap ? 0 : size);
    const uint32_t there = from.position + (from.wrap ? 0 : size);
    return here >= there ? here - there : here + 2 * size - there;
  }
  // Flags of an entry that is available, or used, in this lap.
  [[nodiscard]] uint16_t available_flags() const { return wrap ? packed_avail_flag : packed_used_flag; }
  [[nodiscard]] uint16_t used_flags() const { return wrap ? packed_avail_flag | packed_used_flag : 0; }
};

inline bool has_packed_flags(uint16_t flags, uint16_t wanted) {
  return (flags & (packed_avail_flag | packed_used_flag)) == wanted;
}

// What one side of a packed ring says about when it wants to be told.
struct PackedEvent {
  uint32_t raw = 0;  // in our byte order

  static PackedEvent always() { return {uint32_t{VRING_PACKED_EVENT_FLAG_ENABLE} << 16}; }
  static PackedEvent never() { return {uint32_t{VRING_PACKED_EVENT_FLAG_DISABLE} << 16}; }
  static PackedEvent at(const PackedPlace& place) {
    return {uint32_t{VRING_PACKED_EVENT_FLAG_DESC} << 16 |
            uint32_t{place.wrap} << VRING_PACKED_EVENT_F_WRAP_CTR | place.position};
  }
  // Whether entries [before, before + count) are worth a notification. An offset outside the ring matches by
  // chance or never; the reserved value of the flags means "always".
  [[nodiscard]] bool wants(const PackedPlace& before, uint32_t count, uint32_t size, bool event_idx) const {
    const uint32_t flags = raw >> 16 & 3;
    if (flags == VRING_PACKED_EVENT_FLAG_DISABLE) return false;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !event_idx) return true;
    const PackedPlace event{.position = raw & 0x7fff,
                            .wrap = (raw >> VRING_PACKED_EVENT_F_WRAP_CTR & 1) != 0};
    return event.position < size && event.distance_from(before, size) < count;
  }
};

}  // namespace ringway::ring
