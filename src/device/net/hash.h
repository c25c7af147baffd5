// The hash of a frame's addresses and ports by which frames are spread over receive queues, and reported.
// VIRTIO "Network Device / Hash calculation for incoming packets". Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace ringway::net {

enum HashType : uint32_t {  // bits
  VIRTIO_NET_HASH_TYPE_IPv4 = 1U << 0,
  VIRTIO_NET_HASH_TYPE_TCPv4 = 1U << 1,
  VIRTIO_NET_HASH_TYPE_UDPv4 = 1U << 2,
  VIRTIO_NET_HASH_TYPE_IPv6 = 1U << 3,
  VIRTIO_NET_HASH_TYPE_TCPv6 = 1U << 4,
  VIRTIO_NET_HASH_TYPE_UDPv6 = 1U << 5,
};
inline constexpr uint32_t supported_hash_types = 0x3f;  // without those of IPv6 extension headers

enum HashReport : uint16_t {
  VIRTIO_NET_HASH_REPORT_NONE = 0,
  VIRTIO_NET_HASH_REPORT_IPv4 = 1,
  VIRTIO_NET_HASH_REPORT_TCPv4 = 2,
  VIRTIO_NET_HASH_REPORT_UDPv4 = 3,
  VIRTIO_NET_HASH_REPORT_IPv6 = 4,
  VIRTIO_NET_HASH_REPORT_TCPv6 = 5,
  VIRTIO_NET_HASH_REPORT_UDPv6 = 6,
};

inline constexpr size_t hash_key_size = 40;  // bytes; shorter keys go on with zeros
using HashKey = std::array<std::byte, hash_key_size>;

struct HashResult {
  uint32_t value = 0;
  HashReport report = VIRTIO_NET_HASH_REPORT_NONE;
};

// The Toeplitz hash with one key.
class Toeplitz {
 public:
  explicit Toeplitz(const HashKey& key);
  [[nodiscard]] const HashKey& key() const { return key_; }
  // At most 36 bytes: two IPv6 addresses and two ports.
  [[nodiscard]] uint32_t operator()(std::span<const std::byte> input) const;

 private:
  const HashKey key_;
  static constexpr size_t max_input = hash_key_size - 4;                 // bytes
  std::array<std::array<uint32_t, 16>, 2 * max_input> contributions_{};  // of each value of each half byte
};

// `head`: the first bytes of the frame; enough are 14, two VLAN tags, an IPv6 header and two ports. The most
// specific of `types` that the frame has counts; none if it has none of them, or is cut short before.
[[nodiscard]] HashResult hash_of(std::span<const std::byte> head, uint32_t types, const Toeplitz& hash);

}  // namespace ringway::net
