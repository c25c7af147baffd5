// Frame: one Ethernet frame on its way between a network device and a port, with what virtio says about it.
// Owned by whoever sends it; between send() and its end only the port may touch it, on any thread.
// VIRTIO "Network Device", "Device Operation".
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace ringway::port {

// The work that is left to do on a frame: the fields of virtio_net_hdr in host byte order, checked against the
// frame before it leaves the device. All zeros: nothing is left.
struct Offload {
  uint8_t flags = 0;     // VIRTIO_NET_HDR_F_*
  uint8_t gso_type = 0;  // VIRTIO_NET_HDR_GSO_*
  uint16_t hdr_len = 0;  // bytes
  uint16_t gso_size = 0;
  uint16_t csum_start = 0;
  uint16_t csum_offset = 0;
};

struct Frame {
  Offload offload;
  uint32_t length = 0;            // bytes, without any virtio header; at least an Ethernet header
  std::span<const iovec> pieces;  // where they are: the peer's memory, so each byte may be read once
  // Called on the thread of the loop that sent it when send() said `later`.
  void (*done)(Frame&) = nullptr;
  Frame* next = nullptr;  // the port's, while it has the frame
};

}  // namespace ringway::port
