// How many file descriptors this process may hold.
#pragma once

#include <sys/resource.h>

namespace ringway::tools {

// As many as the system lets us: each device, ring and message brings some.
inline void allow_many_fds() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace ringway::tools
