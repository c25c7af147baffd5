// Supervisor: a process that does nothing but start a server, and start it again when it has crashed. It
// keeps what was opened before, so front-ends that connect meanwhile wait instead of being refused. Main
// thread, and no other may have been started.
#pragma once

#include <functional>
#include <string_view>

namespace ringway::tools {

inline constexpr std::string_view no_upgrade_when_supervised =
    "under --restart-on-failure a server cannot be replaced at work: its supervisor would not know the new "
    "one";

// Runs `serve` in a process of its own until it ends with 0, or is told to end by SIGTERM or SIGINT, which it
// is told too, as of SIGHUP and SIGUSR1. Who asks it for an upgrade (SIGUSR2) is told that there is none. A
// server that cannot even start the first time is not started again. The value is the exit status of the last
// one.
int supervise(const std::function<int()>& serve);

}  // namespace ringway::tools
