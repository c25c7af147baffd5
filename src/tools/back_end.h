// Reaching a back-end by the path of its socket, with errors that users understand, and who it is. Any
// thread.
#pragma once

#include <sys/types.h>

#include <expected>
#include <string>

#include "ringway/base/unique_fd.h"

namespace ringway::tools {

struct Peer {
  UniqueFd fd;          // the connected socket
  pid_t pid = 0;        // of the process that listens; 0: not to be seen from here
  std::string program;  // its name; empty: unknown
};

// The error is a sentence for the user that names the path.
std::expected<Peer, std::string> reach(const std::string& path);

}  // namespace ringway::tools
