// DriverConfig: what a driver half is made of, and where its parts lie. Any thread.
#pragma once

#include <cstdint>
#include <span>

#include "ringway/memory/address.h"
#include "ringway/ring/config.h"
#include "ringway/ring/tokens.h"

namespace ringway::ring {

// Memory for a device to read or to write, by the address that the device knows it by.
struct Buffer {
  memory::GuestAddress address;
  uint32_t length = 0;  // bytes
};

// Byte offsets of the parts in a driver's area, each on cache lines of its own.
struct DriverLayout {
  static constexpr size_t alignment = 64;  // of the area, in both address spaces
  uint64_t desc = 0;
  uint64_t driver = 0;
  uint64_t device = 0;
  uint64_t tables = 0;       // indirect tables, one per ring entry
  uint64_t table_bytes = 0;  // from one to the next
  uint64_t bytes = 0;        // of the whole area

  static DriverLayout of(uint32_t size, const Format& format, uint32_t table_entries);
};

struct DriverConfig {
  uint32_t size = 0;  // entries
  Format format;
  RingBase base;  // where to begin; nothing is in flight
  // Entries of the indirect table that every chain of 2 to so many buffers goes into. 0: all chains are
  // direct.
  uint32_t table_entries = 0;
  // DriverLayout::bytes that the driver owns and the device can reach; they are overwritten.
  std::byte* area = nullptr;
  memory::GuestAddress address;  // of the area, as the device is told

  // Refuses what cannot run.
  [[nodiscard]] Result<> validate() const;
  [[nodiscard]] DriverLayout layout() const { return DriverLayout::of(size, format, table_entries); }
};

// The buffers of one chain, as add() takes them.
struct Buffers {
  std::span<const Buffer> readable;
  std::span<const Buffer> writable;
  [[nodiscard]] uint32_t count() const { return static_cast<uint32_t>(readable.size() + writable.size()); }
  [[nodiscard]] uint64_t writable_bytes() const {
    uint64_t bytes = 0;
    for (const Buffer& buffer : writable) bytes += buffer.length;
    return bytes;
  }
};

}  // namespace ringway::ring
