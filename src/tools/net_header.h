// What linux/virtio_net.h would say, which is not C++, as far as this driver speaks of it. Any thread. VIRTIO
// "Network Device": "Feature bits", "Device configuration layout", "Device Operation".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ringway/base/endian.h"

namespace ringway::tools {

inline constexpr unsigned VIRTIO_NET_F_CSUM = 0;
inline constexpr unsigned VIRTIO_NET_F_GUEST_CSUM = 1;
inline constexpr unsigned VIRTIO_NET_F_MTU = 3;
inline constexpr unsigned VIRTIO_NET_F_MAC = 5;
inline constexpr unsigned VIRTIO_NET_F_GUEST_TSO4 = 7;
inline constexpr unsigned VIRTIO_NET_F_HOST_TSO4 = 11;
inline constexpr unsigned VIRTIO_NET_F_MRG_RXBUF = 15;
inline constexpr unsigned VIRTIO_NET_F_MQ = 22;

inline constexpr uint8_t VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
inline constexpr uint8_t VIRTIO_NET_HDR_GSO_TCPV4 = 1;

struct NetHeader {  // struct virtio_net_hdr of the specification
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  le16 hdr_len;
  le16 gso_size;
  le16 csum_start;
  le16 csum_offset;
  le16 num_buffers;
};
static_assert(sizeof(NetHeader) == 12);
inline constexpr uint32_t net_header_bytes = sizeof(NetHeader);

using MacAddress = std::array<uint8_t, 6>;

struct NetConfig {  // struct virtio_net_config, up to the last field that is read
  MacAddress mac{};
  le16 status;
  le16 max_virtqueue_pairs;
  le16 mtu;
};
static_assert(sizeof(NetConfig) == 12);

}  // namespace ringway::tools
