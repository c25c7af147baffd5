// How long the header in front of each frame is, in both directions. VIRTIO "Network Device / Device
// Operation". Any thread.
#pragma once

#include <linux/virtio_config.h>

#include "ringway/device/port/virtio_net.h"

namespace ringway::net {

[[nodiscard]] inline size_t header_size(uint64_t features) {  // in bytes
  const auto has = [&](unsigned feature) { return (features & port::bit(feature)) != 0; };
  if (has(port::VIRTIO_NET_F_HASH_REPORT)) return sizeof(port::Header);
  if (has(VIRTIO_F_VERSION_1) || has(port::VIRTIO_NET_F_MRG_RXBUF)) return port::plain_header;
  return port::legacy_header;
}

}  // namespace ringway::net
