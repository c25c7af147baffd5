#include "ringway/base/quiet_write.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace ringway {

ssize_t quiet_write(int fd, std::span<const std::byte> from) {
  sigset_t pipe_signal;
  sigset_t before;
  ::sigemptyset(&pipe_signal);
  ::sigaddset(&pipe_signal, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t written = ::write(fd, from.data(), from.size());
  const int error = errno;
  // It is sent to the thread that wrote. If it was blocked and pending before, one SIGPIPE stands for both.
  const timespec at_once{};
  if (written < 0 && error == EPIPE && ::sigismember(&before, SIGPIPE) == 0) {
    ::sigtimedwait(&pipe_signal, nullptr, &at_once);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return written;
}

}  // namespace ringway
