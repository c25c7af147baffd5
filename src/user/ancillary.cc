#include "ringway/user/ancillary.h"

#include <cassert>
#include <cstring>

namespace ringway::user {
namespace {

constexpr int scm_pidfd = 0x04;  // SCM_PIDFD, newer than our headers

void take(const cmsghdr& control, std::vector<UniqueFd>& to) {
  const size_t count = (control.cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (size_t i = 0; i < count; ++i) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(&control) + i * sizeof(int), sizeof fd);
    to.emplace_back(fd);
  }
}

}  // namespace

void Ancillary::make_room(msghdr& message) {
  message.msg_control = bytes_.data();
  message.msg_controllen = bytes_.size();
}

std::vector<UniqueFd> Ancillary::take_fds(msghdr& message) {
  std::vector<UniqueFd> fds;
  std::vector<UniqueFd> closed;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET) continue;
    if (control->cmsg_type == SCM_RIGHTS) take(*control, fds);
    if (control->cmsg_type == scm_pidfd) take(*control, closed);
  }
  return fds;
}

void Ancillary::attach(msghdr& message, std::span<const UniqueFd> fds) {
  assert(fds.size() <= max_fds);
  if (fds.empty()) return;
  message.msg_control = bytes_.data();
  message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
  cmsghdr* const control = CMSG_FIRSTHDR(&message);
  *control = {
      .cmsg_len = CMSG_LEN(fds.size() * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  for (size_t i = 0; i < fds.size(); ++i) {
    const int fd = fds[i].get();
    std::memcpy(CMSG_DATA(control) + i * sizeof(int), &fd, sizeof fd);
  }
}

}  // namespace ringway::user
