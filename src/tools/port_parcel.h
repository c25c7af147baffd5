// PortParcel: a port on its way to another process in a live upgrade, as the one file descriptor that a
// letter carries for a device: a socket in which a packet waits. docs/upgrade-format.md. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ringway/base/unique_fd.h"
#include "ringway/device/port/port.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {

struct ParceledPort {
  std::string kind;  // "tap"
  std::string mac;   // of the device; empty: there is no device, the port is an uplink
  port::HandedPort port;
};

Result<UniqueFd> wrap_port(ParceledPort parcel);
Parsed<ParceledPort> unwrap_port(UniqueFd socket);

// The kind of a port as it is written: "tap:name=tap0" is a "tap".
[[nodiscard]] std::string kind_in(std::string_view port);

}  // namespace ringway::tools
