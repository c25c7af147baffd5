#include "ringway/device/net/offload.h"

#include <algorithm>

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification

// The feature without which a driver may not use a type of segmentation. Types that do not exist need one
// that is never negotiated.
uint64_t needed_for(uint8_t gso_type) {
  const bool ecn = (gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0;
  const uint64_t with_ecn = ecn ? bit(VIRTIO_NET_F_HOST_ECN) : 0;
  switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return bit(VIRTIO_NET_F_HOST_TSO4) | with_ecn;
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return bit(VIRTIO_NET_F_HOST_TSO6) | with_ecn;
    case VIRTIO_NET_HDR_GSO_UDP:
      return ecn ? ~uint64_t{0} : bit(VIRTIO_NET_F_HOST_UFO);
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return ecn ? ~uint64_t{0} : bit(VIRTIO_NET_F_HOST_USO);
    default:
      return ~uint64_t{0};
  }
}

// What is left to fill in: two bytes behind the Ethernet header.
bool checksum_lies_within(const Offload& offload, uint32_t length) {
  return offload.csum_start >= min_frame && uint32_t{offload.csum_start} + offload.csum_offset + 2 <= length;
}

void swap(Header& header) {
  for (le16 Header::* field :
       {&Header::hdr_len, &Header::gso_size, &Header::csum_start, &Header::csum_offset}) {
    header.*field = std::byteswap(static_cast<uint16_t>(header.*field));
  }
}

}  // namespace

std::optional<Offload> judge(Header header, bool big_endian, uint32_t length, uint64_t features) {
  if (big_endian) swap(header);
  Offload offload = to_offload(header);
  offload.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;  // the others a driver may not set, or are not known here
  if (offload.flags != 0) {
    if ((features & bit(VIRTIO_NET_F_CSUM)) == 0 || !checksum_lies_within(offload, length))
      return std::nullopt;
  } else {
    offload.csum_start = offload.csum_offset = 0;
  }
  if (offload.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
    offload.gso_size = offload.hdr_len = 0;
    return offload;
  }
  const uint64_t needed = needed_for(offload.gso_type);
  if ((features & needed) != needed || offload.gso_size == 0) return std::nullopt;
  offload.hdr_len = static_cast<uint16_t>(std::min<uint32_t>(offload.hdr_len, length));  // a hint
  return offload;
}

}  // namespace ringway::net
