// The address spaces of vhost, each with its own type, none converting into another. Any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace ringway::memory {

template <class Space>
struct Address {
  uint64_t value = 0;
  auto operator<=>(const Address&) const = default;
  // This address plus `offset` bytes; nothing on overflow.
  [[nodiscard]] std::optional<Address> plus(uint64_t offset) const {
    uint64_t sum = 0;
    if (__builtin_add_overflow(value, offset, &sum)) return std::nullopt;
    return Address{sum};
  }
};

// What a driver puts into descriptors: guest-physical, or an I/O virtual address with
// VIRTIO_F_ACCESS_PLATFORM.
using GuestAddress = Address<struct GuestSpace>;
// What a front-end puts into SET_VRING_ADDR and IOTLB messages: its own virtual address ("user address").
using FrontEndAddress = Address<struct FrontEndSpace>;

enum class Access : uint8_t { read = 1, write = 2, read_write = 3 };  // the bits of an IOTLB permission
[[nodiscard]] constexpr bool permits(Access granted, Access wanted) {
  return (static_cast<uint8_t>(granted) & static_cast<uint8_t>(wanted)) == static_cast<uint8_t>(wanted);
}

}  // namespace ringway::memory
