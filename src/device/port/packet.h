// An interface of this machine by a raw packet socket: frames leave on it, and what it receives arrives here,
// whoever it is for. Thread rule: as Port.
#pragma once

#include <memory>
#include <string>

#include "ringway/device/port/port.h"

namespace ringway::port {

// The interface must be there; it may go and come back.
Result<std::unique_ptr<Port>> open_packet(const std::string& interface);
// Goes on with the socket that Port::hand_over() has given in another process.
Result<std::unique_ptr<Port>> resume_packet(const std::string& interface, HandedPort handed);

}  // namespace ringway::port
