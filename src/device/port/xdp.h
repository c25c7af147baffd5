// An interface of this machine by AF_XDP sockets, past the network stack: frames leave on queues of it, and
// what these receive arrives here, whoever it is for. Without offloads, for AF_XDP has none. Thread rule: as
// Port.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ringway/device/port/port.h"
#include "ringway/device/port/xdp_socket.h"

namespace ringway::port {

struct XdpOptions {
  std::string interface;
  uint32_t queue = 0;  // of the interface: the first of those that are used
  uint16_t pairs = 1;  // of queues that the device has: so many of the interface are used, if it has them
  XdpMode mode = XdpMode::automatic;
};

// The interface must be there; it may go and come back.
Result<std::unique_ptr<Port>> open_xdp(const XdpOptions& options);

}  // namespace ringway::port
