// CuseDevice: a character device that CUSE makes for real (/dev/NAME), every open of which is a
// kernel::IoctlServer. Threads: those of libfuse call in, several at once.
#pragma once

#include <string>

#include "ringway/kernel/ioctl_server.h"

namespace ringway::tools {

// Makes the device and serves it until SIGTERM, SIGINT or SIGHUP. Returns an exit status; what went wrong has
// been said on standard error.
int serve_by_cuse(const std::string& name, const kernel::IoctlServer::Options& options,
                  kernel::IoctlServer::MakeDevice make_device);

}  // namespace ringway::tools
