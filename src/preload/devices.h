// The devices that can be served as files of the kernel's vhost, by name. Any thread.
#pragma once

#include <string_view>

#include "ringway/engine/workers.h"
#include "ringway/kernel/ioctl_server.h"

namespace ringway::preload {

// "tap": a network device over what VHOST_NET_SET_BACKEND names. "loopback": one whose frames come back.
// Refuses every other name. `workers` outlive the device.
Result<kernel::IoctlServer::Served> make_device(std::string_view name, engine::Workers& workers);
[[nodiscard]] bool is_device_name(std::string_view name);

}  // namespace ringway::preload
