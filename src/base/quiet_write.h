// quiet_write: write() to a pipe whose reader may leave at any moment, which must not end the process. Any
// thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

namespace ringway {

// As write(), but without the SIGPIPE that goes with EPIPE.
ssize_t quiet_write(int fd, std::span<const std::byte> from);

}  // namespace ringway
