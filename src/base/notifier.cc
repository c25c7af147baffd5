#include "ringway/base/notifier.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <array>
#include <climits>
#include <span>
#include <string_view>

#include "ringway/base/quiet_write.h"

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
Result<UniqueFd> own_description(UniqueFd fd, NotifyKind kind, int mode) {
  if (kind == NotifyKind::eventfd) return fd;
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
  const NotifyKind kind = TRY(notify_kind(fd.get()));
  return Notifier(TRY(own_description(std::move(fd), kind, O_WRONLY)), kind);
}

void Notifier::signal() const {
  if (!ready(fd_.get(), POLLOUT)) return;
  const uint64_t one = 1;
  if (kind_ == NotifyKind::pipe) {
    quiet_write(fd_.get(), std::as_bytes(std::span(&one, 1)));
  } else {
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  }
}

Result<Signal> Signal::adopt(UniqueFd fd) {
  const NotifyKind kind = TRY(notify_kind(fd.get()));
  return Signal(TRY(own_description(std::move(fd), kind, O_RDONLY)), kind);
}

bool Signal::take() const {
  if (kind_ == NotifyKind::pipe) return take_from_pipe();
  uint64_t events = 0;
  iovec whole{.iov_base = &events, .iov_len = sizeof events};
  // One read takes the whole count. The description is the peer's too, so that it does not block is asked for
  // here.
  ssize_t got = ::preadv2(fd_.get(), &whole, 1, -1, RWF_NOWAIT);
  if (got < 0 && errno == EOPNOTSUPP && ready(fd_.get(), POLLIN))
    got = ::read(fd_.get(), &events, sizeof events);
  return got > 0;
}

bool Signal::take_from_pipe() const {
  std::array<std::byte, 4096> events;
  constexpr size_t usual_capacity = 65536;
  size_t total = 0;
  while (total < usual_capacity) {
    const ssize_t got = ::read(fd_.get(), events.data(), events.size());
    if (got <= 0) break;
    total += static_cast<size_t>(got);
    if (static_cast<size_t>(got) < events.size()) break;
  }
  return total > 0;
}

Result<UniqueFd> make_eventfd() {
  UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!fd) return os_failure("cannot create an eventfd");
  return fd;
}

}  // namespace ringway
