#include "ringway/base/unique_fd.h"

#include <fcntl.h>

namespace ringway {

Result<UniqueFd> UniqueFd::duplicate() const {
  const int copy = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return os_failure("cannot duplicate a file descriptor");
  return UniqueFd(copy);
}

}  // namespace ringway
