// Frame: one Ethernet frame on its way between a network device and a port, with what virtio says about it.
// Owned by whoever sends it; between send() and its end only the port may touch it, on any thread.
// VIRTIO "Network Device", "Device Operation".
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace ringway::port {

inline constexpr uint32_t min_frame = 14;  // bytes: an Ethernet header
// The largest IP packet, with an Ethernet header and one VLAN tag.
inline constexpr uint32_t max_frame = 65535 + 14 + 4;  // bytes
inline constexpr uint32_t max_head = 64;               // bytes

// The work that is left to do on a frame: the fields of virtio_net_hdr in host byte order, checked against
// the frame before it leaves the device. All zeros: nothing is left.
struct Offload {
  uint8_t flags = 0;     // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_DATA_VALID
  uint8_t gso_type = 0;  // VIRTIO_NET_HDR_GSO_*
  uint16_t hdr_len = 0;  // bytes
  uint16_t gso_size = 0;
  uint16_t csum_start = 0;
  uint16_t csum_offset = 0;
  bool operator==(const Offload&) const = default;
};

struct Frame {
  Offload offload;
  uint32_t length = 0;  // bytes of head and pieces: min_frame to max_frame
  // Its first bytes, as many as the port has asked for (Abilities::head): a copy that no peer can change, so
  // what is decided on it stays true. Empty if the port has not asked.
  std::span<const std::byte> head;
  // The bytes behind the head, where they are: the peer's memory, so each may be read once.
  std::span<const iovec> pieces;
  // Called on the thread of the loop that sent it, after Outlet::send() or send_batch() has said `later`.
  void (*done)(Frame&) = nullptr;
  Frame* next = nullptr;  // the port's, while it has the frame
};

}  // namespace ringway::port
