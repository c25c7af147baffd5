// A port to the internet for processes without privileges: a network of its own behind a small TCP/IP stack
// (libslirp), which opens ordinary sockets of this process. The stack has a thread of its own, since it wants
// to poll(2) its sockets and is not made for several threads. Thread rule: as Port.
#pragma once

#include <netinet/in.h>

#include <memory>
#include <vector>

#include "ringway/device/port/port.h"

namespace ringway::port {

struct UserOptions {
  // The guest's network; its hosts 2 (gateway, and the way to this machine), 3 (name server) and 15 (the
  // first address that is given out by DHCP) follow from it.
  in_addr network{.s_addr = htonl(0x0a000200)};
  uint8_t prefix = 24;
  bool is_restricted = false;  // nothing gets out but answers to what was forwarded in
  struct Forward {
    bool is_udp = false;
    in_addr host{};  // of this machine; any if zero
    uint16_t host_port = 0;
    in_addr guest{};  // the first of DHCP if zero
    uint16_t guest_port = 0;
  };
  std::vector<Forward> forwards;
};

Result<std::unique_ptr<Port>> open_user(const UserOptions& options);

}  // namespace ringway::port
