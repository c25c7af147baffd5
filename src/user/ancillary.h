// Ancillary: the control data of one socket message, and the file descriptors in it. unix(7), SCM_RIGHTS. One
// thread; it outlives the call that the message is for.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "ringway/base/unique_fd.h"

namespace ringway::user {

class Ancillary {
 public:
  static constexpr size_t max_fds = 253;  // SCM_MAX_FD: what the kernel passes at once

  // Before recvmsg: room for whatever may come, so that only a lack of file descriptors truncates.
  void make_room(msghdr& message);
  // After recvmsg: the file descriptors that were passed. What comes unasked besides (SCM_PIDFD) is closed.
  [[nodiscard]] static std::vector<UniqueFd> take_fds(msghdr& message);
  // Before sendmsg: they go with the first byte, and stay the caller's. At most max_fds; none: no effect.
  void attach(msghdr& message, std::span<const UniqueFd> fds);

 private:
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(max_fds * sizeof(int)) + CMSG_SPACE(sizeof(ucred)) +
                                             CMSG_SPACE(sizeof(int))> bytes_;
};

}  // namespace ringway::user
