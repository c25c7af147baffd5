#include "ringway/kernel/net_backend.h"

#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace ringway::kernel {
namespace {

int option_of(int socket, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(socket, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

// macvtap devices answer this too.
bool is_tap(int fd) {
  struct stat status{};
  unsigned features = 0;
  return ::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && ::ioctl(fd, TUNGETFEATURES, &features) == 0;
}

}  // namespace

bool is_net_backend(int fd) {
  return (option_of(fd, SO_TYPE) == SOCK_RAW && option_of(fd, SO_DOMAIN) == AF_PACKET) || is_tap(fd);
}

}  // namespace ringway::kernel
