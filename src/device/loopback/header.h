// What linux/virtio_net.h would say, which is not C++ (a member is called class). VIRTIO "Network Device":
// "Feature bits", "Device Operation". Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ringway/base/endian.h"

namespace ringway::loopback {

inline constexpr unsigned VIRTIO_NET_F_MRG_RXBUF = 15;

struct Header {  // struct virtio_net_hdr of the specification
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  le16 hdr_len;
  le16 gso_size;
  le16 csum_start;
  le16 csum_offset;
  le16 num_buffers;  // only with VIRTIO_F_VERSION_1 or VIRTIO_NET_F_MRG_RXBUF
};
static_assert(sizeof(Header) == 12);
inline constexpr size_t short_header = offsetof(Header, num_buffers);

}  // namespace ringway::loopback
