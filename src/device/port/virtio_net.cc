#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

// Features of which a driver needs one to take this type of segment.
uint64_t features_for(uint8_t gso_type) {
  switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return bit(VIRTIO_NET_F_GUEST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return bit(VIRTIO_NET_F_GUEST_TSO6);
    case VIRTIO_NET_HDR_GSO_UDP:
      return bit(VIRTIO_NET_F_GUEST_UFO);
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6);
    default:
      return 0;
  }
}

}  // namespace

bool accepted(const Offload& offload, uint64_t guest_features) {
  const auto has = [&](uint64_t any_of) { return (guest_features & any_of) != 0; };
  if ((offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 && !has(bit(VIRTIO_NET_F_GUEST_CSUM))) return false;
  if (offload.gso_type == VIRTIO_NET_HDR_GSO_NONE) return true;
  if ((offload.gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0 && !has(bit(VIRTIO_NET_F_GUEST_ECN))) return false;
  return has(features_for(offload.gso_type));
}

}  // namespace ringway::port
