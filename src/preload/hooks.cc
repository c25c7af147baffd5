// Of the C functions that the preloaded library puts in front of the C library's: those that can use,
// duplicate or close a descriptor of /dev/vhost-net. Any thread, any time: even before constructors have run.
#include "ringway/preload/hooks.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <span>
#include <vector>

#include "ringway/preload/device_files.h"

namespace {

using ringway::preload::answer;
using ringway::preload::DeviceFile;
using ringway::preload::DeviceFiles;
using ringway::preload::real;
using Control = int(int, int, ...);

std::shared_ptr<DeviceFile> file_of(int fd) {
  if (!DeviceFiles::may_hold(fd)) return nullptr;
  return DeviceFiles::instance().find(fd);
}

bool is_pipe(int fd) {
  struct stat status{};
  return ::fstat(fd, &status) != 0 || S_ISFIFO(status.st_mode);  // or it is not there any more
}

bool blocks(int fd) { return (RINGWAY_REAL(Control, fcntl)(fd, F_GETFL) & O_NONBLOCK) == 0; }

// `fd` has just become another descriptor of `file`'s.
int copied(int fd, const std::shared_ptr<DeviceFile>& file) {
  if (fd >= 0 && file) DeviceFiles::instance().add(fd, file);
  return fd;
}

// What is known of `fd`, whatever is behind it now: none, or one.
std::vector<DeviceFiles::Entry> entries(int fd) {
  if (!DeviceFiles::may_hold(fd)) return {};
  return DeviceFiles::instance().entries(static_cast<unsigned>(fd), static_cast<unsigned>(fd));
}

// `make` makes `to` a descriptor of `file`'s, or none of ours. What was there ends after it has been
// replaced; where nothing was, `file` is known before, since another thread may ask at once.
template <class Make>
int replacing(int to, const std::shared_ptr<DeviceFile>& file, Make make) {
  const auto replaced = entries(to);
  const bool is_new = replaced.empty() && file;
  if (is_new) DeviceFiles::instance().add(to, file);
  const int made = make();
  const int error = errno;
  if (made < 0 && is_new) DeviceFiles::instance().remove(to, file);
  errno = error;
  if (made < 0) return made;
  if (file) return copied(made, file);
  for (const auto& one : replaced) DeviceFiles::instance().remove(to, one.file);
  return made;
}

// `close` closes descriptors, of which these are ours.
template <class Close>
int closing(std::vector<DeviceFiles::Entry> ours, Close close) {
  const int result = close();
  const int error = errno;
  for (const auto& [fd, file] : ours) DeviceFiles::instance().remove(fd, file);
  ours.clear();
  errno = error;
  return result;
}

// The program's vector, which may be anywhere.
ringway::Result<std::vector<iovec>> pieces(const iovec* vector, int count) {
  if (count < 0 || count > IOV_MAX) return ringway::os_failure("vector", EINVAL);
  std::vector<iovec> copy(static_cast<size_t>(count));
  ringway::kernel::OwnProcess own;
  TRY(own.copy_in(std::as_writable_bytes(std::span(copy)), reinterpret_cast<uintptr_t>(vector)));
  return copy;
}

// Not at first use, which may be in a child of vfork(), whose number the parent would keep.
[[gnu::constructor]] void begin_of_process() { (void)DeviceFiles::instance(); }

[[gnu::destructor]] void end_of_process() { DeviceFiles::instance().end(); }

}  // namespace

// ---- use

RINGWAY_HOOK int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  const auto ask = [&](DeviceFile& file) {
    return answer(static_cast<int>(file.ioctl(request, reinterpret_cast<uintptr_t>(argument))));
  };
  using Ioctl = int(int, unsigned long, ...);
  // Other threads may just have made it one of ours, or have closed it: then a pipe of ours has answered that
  // it knows no ioctls, which is true of no device. It is asked again; a pipe of the program's own stays one.
  constexpr int looks = 8;
  for (int look = 1;; ++look) {
    if (const auto file = file_of(fd)) return ask(*file);
    const int result = RINGWAY_REAL(Ioctl, ioctl)(fd, request, argument);
    if (result >= 0 || errno != ENOTTY || look == looks || !DeviceFiles::has_held()) return result;
    if (!is_pipe(fd)) {
      errno = ENOTTY;
      return result;
    }
  }
}

RINGWAY_HOOK ssize_t read(int fd, void* to, size_t size) {
  if (const auto file = file_of(fd)) {
    const iovec piece{.iov_base = to, .iov_len = size};
    return answer(file->read({&piece, 1}, blocks(fd)));
  }
  using Read = ssize_t(int, void*, size_t);
  return RINGWAY_REAL(Read, read)(fd, to, size);
}

RINGWAY_HOOK ssize_t __read_chk(int fd, void* to, size_t size,
                                size_t room) {  // NOLINT(bugprone-reserved-identifier)
  if (size <= room && DeviceFiles::may_hold(fd)) return read(fd, to, size);
  using ReadChecked = ssize_t(int, void*, size_t, size_t);
  return RINGWAY_REAL(ReadChecked, __read_chk)(fd, to, size, room);
}

RINGWAY_HOOK ssize_t write(int fd, const void* from, size_t size) {
  if (const auto file = file_of(fd)) {
    const iovec piece{.iov_base = const_cast<void*>(from),
                      .iov_len = size};  // NOLINT: iovec serves both ways
    return answer(file->write({&piece, 1}));
  }
  using Write = ssize_t(int, const void*, size_t);
  return RINGWAY_REAL(Write, write)(fd, from, size);
}

using Vector = ssize_t(int, const iovec*, int);

RINGWAY_HOOK ssize_t readv(int fd, const iovec* vector, int count) {
  if (const auto file = file_of(fd)) {
    const auto copy = pieces(vector, count);
    return answer(copy ? file->read(*copy, blocks(fd)) : -copy.error().os_error);
  }
  return RINGWAY_REAL(Vector, readv)(fd, vector, count);
}

RINGWAY_HOOK ssize_t writev(int fd, const iovec* vector, int count) {
  if (const auto file = file_of(fd)) {
    const auto copy = pieces(vector, count);
    return answer(copy ? file->write(*copy) : -copy.error().os_error);
  }
  return RINGWAY_REAL(Vector, writev)(fd, vector, count);
}

// ---- duplicate, close

RINGWAY_HOOK int dup(int fd) noexcept {
  using Dup = int(int);
  const auto file = file_of(fd);
  return copied(RINGWAY_REAL(Dup, dup)(fd), file);
}

RINGWAY_HOOK int dup2(int from, int to) noexcept {
  using Dup2 = int(int, int);
  const auto file = file_of(from);
  if (from == to || (!file && !DeviceFiles::may_hold(to))) return RINGWAY_REAL(Dup2, dup2)(from, to);
  if (RINGWAY_REAL(Control, fcntl)(from, F_GETFD) < 0) return -1;
  return replacing(to, file, [&] { return RINGWAY_REAL(Dup2, dup2)(from, to); });
}

RINGWAY_HOOK int dup3(int from, int to, int flags) noexcept {
  using Dup3 = int(int, int, int);
  const auto file = file_of(from);
  if (from == to || (!file && !DeviceFiles::may_hold(to))) return RINGWAY_REAL(Dup3, dup3)(from, to, flags);
  if (RINGWAY_REAL(Control, fcntl)(from, F_GETFD) < 0) return -1;
  return replacing(to, file, [&] { return RINGWAY_REAL(Dup3, dup3)(from, to, flags); });
}

namespace {

int control(Control* real_one, int fd, int command, void* argument) {
  if (command != F_DUPFD && command != F_DUPFD_CLOEXEC) return real_one(fd, command, argument);
  const auto file = file_of(fd);
  return copied(real_one(fd, command, argument), file);
}

}  // namespace

RINGWAY_HOOK int fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* argument = va_arg(list, void*);
  va_end(list);
  return control(RINGWAY_REAL(Control, fcntl), fd, command, argument);
}

RINGWAY_HOOK int fcntl64(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* argument = va_arg(list, void*);
  va_end(list);
  return control(RINGWAY_REAL(Control, fcntl64), fd, command, argument);
}

// The number is given back first; when another thread gets it, it is taken for what is behind it then. Then
// the device ends.
RINGWAY_HOOK int close(int fd) {
  using Close = int(int);
  return closing(entries(fd), [fd] { return RINGWAY_REAL(Close, close)(fd); });
}

RINGWAY_HOOK int close_range(unsigned first, unsigned last, int flags) noexcept {
  using CloseRange = int(unsigned, unsigned, int);
  constexpr int all_flags = CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC;
  const bool closes = (flags & ~all_flags) == 0 && (flags & CLOSE_RANGE_CLOEXEC) == 0;
  if (!closes || !DeviceFiles::has_held()) return RINGWAY_REAL(CloseRange, close_range)(first, last, flags);
  return closing(DeviceFiles::instance().entries(first, last),
                 [&] { return RINGWAY_REAL(CloseRange, close_range)(first, last, flags); });
}

RINGWAY_HOOK void closefrom(int first) noexcept {
  using CloseFrom = void(int);
  if (!DeviceFiles::has_held()) return RINGWAY_REAL(CloseFrom, closefrom)(first);
  closing(DeviceFiles::instance().entries(first < 0 ? 0 : static_cast<unsigned>(first), UINT32_MAX), [&] {
    RINGWAY_REAL(CloseFrom, closefrom)(first);
    return 0;
  });
}
