// What a driver leaves to the device to do on a frame, judged before the frame goes anywhere. VIRTIO "Network
// Device / Packet Transmission". Any thread.
#pragma once

#include <bit>
#include <optional>

#include "ringway/device/port/virtio_net.h"

namespace ringway::net {

// A legacy driver of the other byte order has big-endian headers.
[[nodiscard]] inline le16 in_driver_order(uint16_t value, bool big_endian) {
  return big_endian ? std::byteswap(value) : value;
}

// The header of a frame of `length` bytes, as the driver wrote it. Nothing: what it asks for was not
// negotiated
// (`features`), or does not lie within the frame. Fields that mean nothing are zero in the result.
[[nodiscard]] std::optional<port::Offload> judge(port::Header header, bool big_endian, uint32_t length,
                                                 uint64_t features);

}  // namespace ringway::net
