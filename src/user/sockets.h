// UNIX stream sockets by path and by number: how back-ends and front-ends find each other. Any thread.
// vhost-user "Backend program conventions".
#pragma once

#include <sys/types.h>

#include <array>
#include <optional>
#include <string>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::user {

// Listens at `path` without blocking. The socket appears there when it listens already, so whoever sees it
// can connect. A stale socket there is replaced; one that somebody serves, or anything else, is not. `mode`:
// permissions of the socket; none: what the umask leaves.
Result<UniqueFd> listen_at(const std::string& path, std::optional<mode_t> mode = {});
// Without blocking: a listener whose queue is full is an error like one that is not there.
Result<UniqueFd> connect_to(const std::string& path);
Result<std::array<UniqueFd, 2>> socket_pair();

[[nodiscard]] bool is_unix_stream(int fd);
// Whether an inherited socket (--fd) listens or is connected; refuses what is no UNIX stream socket.
Result<bool> is_listening(int fd);

}  // namespace ringway::user
