// What a service manager (systemd) is told: sd_notify(3), a datagram to where NOTIFY_SOCKET says. Any thread.
#pragma once

#include <string_view>

namespace ringway::tools {

// Nothing happens without a manager, or if it does not listen.
void tell_manager(std::string_view assignments);

}  // namespace ringway::tools
