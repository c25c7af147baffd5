// What linux/virtio_net.h would say, which is not C++ (a member is called class). VIRTIO "Network Device":
// "Feature bits", "Device Operation". Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ringway/base/endian.h"
#include "ringway/device/port/frame.h"

namespace ringway::port {

enum Feature : unsigned {  // numbers of bits
  VIRTIO_NET_F_CSUM = 0,
  VIRTIO_NET_F_GUEST_CSUM = 1,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2,
  VIRTIO_NET_F_MTU = 3,
  VIRTIO_NET_F_MAC = 5,
  VIRTIO_NET_F_GUEST_TSO4 = 7,
  VIRTIO_NET_F_GUEST_TSO6 = 8,
  VIRTIO_NET_F_GUEST_ECN = 9,
  VIRTIO_NET_F_GUEST_UFO = 10,
  VIRTIO_NET_F_HOST_TSO4 = 11,
  VIRTIO_NET_F_HOST_TSO6 = 12,
  VIRTIO_NET_F_HOST_ECN = 13,
  VIRTIO_NET_F_HOST_UFO = 14,
  VIRTIO_NET_F_MRG_RXBUF = 15,
  VIRTIO_NET_F_STATUS = 16,
  VIRTIO_NET_F_CTRL_VQ = 17,
  VIRTIO_NET_F_CTRL_RX = 18,
  VIRTIO_NET_F_CTRL_VLAN = 19,
  VIRTIO_NET_F_CTRL_RX_EXTRA = 20,
  VIRTIO_NET_F_GUEST_ANNOUNCE = 21,
  VIRTIO_NET_F_MQ = 22,
  VIRTIO_NET_F_CTRL_MAC_ADDR = 23,
  VIRTIO_NET_F_VQ_NOTF_COAL = 52,
  VIRTIO_NET_F_NOTF_COAL = 53,
  VIRTIO_NET_F_GUEST_USO4 = 54,
  VIRTIO_NET_F_GUEST_USO6 = 55,
  VIRTIO_NET_F_HOST_USO = 56,
  VIRTIO_NET_F_HASH_REPORT = 57,
  VIRTIO_NET_F_RSS = 60,
  VIRTIO_NET_F_RSC_EXT = 61,
  VIRTIO_NET_F_SPEED_DUPLEX = 63,
};

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

// Work that a driver may leave to the device, and that a device may leave to the driver.
inline constexpr uint64_t transmit_offloads = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
                                              bit(VIRTIO_NET_F_HOST_TSO6) | bit(VIRTIO_NET_F_HOST_ECN) |
                                              bit(VIRTIO_NET_F_HOST_UFO) | bit(VIRTIO_NET_F_HOST_USO);
inline constexpr uint64_t receive_offloads = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4) |
                                             bit(VIRTIO_NET_F_GUEST_TSO6) | bit(VIRTIO_NET_F_GUEST_ECN) |
                                             bit(VIRTIO_NET_F_GUEST_UFO) | bit(VIRTIO_NET_F_GUEST_USO4) |
                                             bit(VIRTIO_NET_F_GUEST_USO6);

enum HeaderFlag : uint8_t {
  VIRTIO_NET_HDR_F_NEEDS_CSUM = 1,
  VIRTIO_NET_HDR_F_DATA_VALID = 2,
};
enum GsoType : uint8_t {
  VIRTIO_NET_HDR_GSO_NONE = 0,
  VIRTIO_NET_HDR_GSO_TCPV4 = 1,
  VIRTIO_NET_HDR_GSO_UDP = 3,
  VIRTIO_NET_HDR_GSO_TCPV6 = 4,
  VIRTIO_NET_HDR_GSO_UDP_L4 = 5,
  VIRTIO_NET_HDR_GSO_ECN = 0x80,  // with one of the TCP types
};

// Nothing is left to do on the frame, and nothing to say about it.
[[nodiscard]] inline bool is_plain(const Offload& offload) {
  return offload.flags == 0 && offload.gso_type == VIRTIO_NET_HDR_GSO_NONE;
}

// Whether a driver that has negotiated these GUEST_* takes a frame with such work left. UDP_L4 is accepted
// with either of its two features: which one it needs stands in the frame.
[[nodiscard]] bool accepted(const Offload& offload, uint64_t guest_features);

struct Header {  // struct virtio_net_hdr of the specification, in its longest form
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  le16 hdr_len;
  le16 gso_size;
  le16 csum_start;
  le16 csum_offset;
  le16 num_buffers;  // only with VIRTIO_F_VERSION_1 or VIRTIO_NET_F_MRG_RXBUF
  le32 hash_value;   // this and what follows only with VIRTIO_NET_F_HASH_REPORT
  le16 hash_report;
  le16 padding;
};
static_assert(sizeof(Header) == 20);
inline constexpr size_t legacy_header = offsetof(Header, num_buffers);  // bytes
inline constexpr size_t plain_header = offsetof(Header, hash_value);    // bytes

// Little-endian, as everything modern is. For ports whose other end speaks it: a tap, a packet socket.
inline Header to_header(const Offload& offload) {
  Header header;
  header.flags = offload.flags;
  header.gso_type = offload.gso_type;
  header.hdr_len = offload.hdr_len;
  header.gso_size = offload.gso_size;
  header.csum_start = offload.csum_start;
  header.csum_offset = offload.csum_offset;
  return header;
}
inline Offload to_offload(const Header& header) {
  return {.flags = header.flags,
          .gso_type = header.gso_type,
          .hdr_len = header.hdr_len,
          .gso_size = header.gso_size,
          .csum_start = header.csum_start,
          .csum_offset = header.csum_offset};
}

}  // namespace ringway::port
