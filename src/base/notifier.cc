#include "ringway/base/notifier.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <array>
#include <climits>
#include <string_view>

namespace ringway {
namespace {

bool is_eventfd(int fd) {
  std::array<char, 64> target{};
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), target.data(), target.size());
  return length > 0 && std::string_view(target.data(), static_cast<size_t>(length)) == "anon_inode:[eventfd]";
}

// A pipe may be opened again, which gives a file description whose O_NONBLOCK is ours alone; an eventfd may
// not.
Result<UniqueFd> own_description(UniqueFd fd, int mode) {
  if (TRY(notify_kind(fd.get())) == NotifyKind::eventfd) return fd;
  UniqueFd own(::open(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), mode | O_NONBLOCK | O_CLOEXEC));
  if (!own) return os_failure("cannot open the notification pipe");
  return own;
}

bool ready(int fd, short events) {
  pollfd entry{.fd = fd, .events = events};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & events) != 0;
}

}  // namespace

Result<NotifyKind> notify_kind(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_failure("cannot examine a notification fd");
  if (S_ISFIFO(status.st_mode)) return NotifyKind::pipe;
  if (is_eventfd(fd)) return NotifyKind::eventfd;
  return refused("a notification fd must be an eventfd or a pipe");
}

Result<Notifier> Notifier::adopt(UniqueFd fd) {
  return Notifier(TRY(own_description(std::move(fd), O_WRONLY)));
}

void Notifier::signal() const {
  if (!ready(fd_.get(), POLLOUT)) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

Result<Signal> Signal::adopt(UniqueFd fd) { return Signal(TRY(own_description(std::move(fd), O_RDONLY))); }

bool Signal::take() const {
  std::array<uint64_t, 64> events{};
  iovec whole{.iov_base = events.data(), .iov_len = sizeof events};
  bool any = false;
  while (true) {
    const ssize_t got = ::preadv2(fd_.get(), &whole, 1, -1, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP && ready(fd_.get(), POLLIN)) {
      any = ::read(fd_.get(), events.data(), sizeof events) > 0 || any;
      return any;
    }
    if (got <= 0) return any;
    any = true;
    if (static_cast<size_t>(got) < sizeof events) return any;
  }
}

Result<UniqueFd> make_eventfd() {
  UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!fd) return os_failure("cannot create an eventfd");
  return fd;
}

}  // namespace ringway
