// Of the C functions that the preloaded library puts in front of the C library's: those that take a path. Any
// thread, any time: even before constructors have run.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <string_view>

#include "ringway/preload/device_files.h"
#include "ringway/preload/device_node.h"
#include "ringway/preload/device_path.h"
#include "ringway/preload/hooks.h"

namespace {

using namespace ringway::preload;  // NOLINT(google-build-using-namespace): hooks have none

using Open = int(const char*, int, ...);
using OpenAt = int(int, const char*, int, ...);
using Open2 = int(const char*, int);
using OpenAt2 = int(int, const char*, int);

// Nothing of ours is touched for other files: this may be a child of vfork().
bool is_device(int folder, std::string_view path) {
  const int saved_errno = errno;
  const bool is = is_net_path(folder, path) && DeviceFiles::instance().serves_net();
  errno = saved_errno;
  return is;
}

// The path may be anywhere, whatever the C library's headers promise to the compiler: the system call will
// say.
bool is_device(int folder, const char* path) {
  const int saved_errno = errno;
  const PathText text(path);
  errno = saved_errno;
  return is_device(folder, text.get());
}

int open_device(const char* path, int flags) { return answer(DeviceFiles::instance().open(path, flags)); }

// What `look` says, which asks the host for a path, or `ours` says if it is our device's. The host has read
// the path then, or has failed otherwise; with AT_EMPTY_PATH there may be none.
template <class Look, class Ours>
int looking(int folder, const char* path, int flags, Look look, Ours ours) {
  const int saved_errno = errno;
  const int result = look();
  if ((flags & AT_EMPTY_PATH) != 0) return result;
  const bool was_read = result == 0 || errno == ENOENT || errno == ENOTDIR || errno == EACCES;
  if (!was_read || !is_device(folder, std::string_view(path))) return result;
  errno = saved_errno;
  return answer(ours());
}

// The variable argument of open() is there with these flags only.
// NOLINTBEGIN(bugprone-macro-parentheses): a name
#define RINGWAY_MODE(flags, mode)                                       \
  mode_t mode = 0;                                                      \
  if (((flags) & O_CREAT) != 0 || ((flags) & O_TMPFILE) == O_TMPFILE) { \
    va_list list;                                                       \
    va_start(list, flags);                                              \
    mode = va_arg(list, mode_t);                                        \
    va_end(list);                                                       \
  }

// NOLINTEND(bugprone-macro-parentheses)

}  // namespace

// ---- open

RINGWAY_HOOK int open(const char* path, int flags, ...) {
  if (is_device(AT_FDCWD, path)) return open_device(path, flags);
  RINGWAY_MODE(flags, mode)
  return RINGWAY_REAL(Open, open)(path, flags, mode);
}

RINGWAY_HOOK int open64(const char* path, int flags, ...) {
  if (is_device(AT_FDCWD, path)) return open_device(path, flags);
  RINGWAY_MODE(flags, mode)
  return RINGWAY_REAL(Open, open64)(path, flags, mode);
}

RINGWAY_HOOK int openat(int folder, const char* path, int flags, ...) {
  if (is_device(folder, path)) return open_device(path, flags);
  RINGWAY_MODE(flags, mode)
  return RINGWAY_REAL(OpenAt, openat)(folder, path, flags, mode);
}

RINGWAY_HOOK int openat64(int folder, const char* path, int flags, ...) {
  if (is_device(folder, path)) return open_device(path, flags);
  RINGWAY_MODE(flags, mode)
  return RINGWAY_REAL(OpenAt, openat64)(folder, path, flags, mode);
}

// What programs call that were compiled with _FORTIFY_SOURCE.
RINGWAY_HOOK int __open_2(const char* path, int flags) {  // NOLINT(bugprone-reserved-identifier)
  return is_device(AT_FDCWD, path) ? open_device(path, flags) : RINGWAY_REAL(Open2, __open_2)(path, flags);
}

RINGWAY_HOOK int __open64_2(const char* path, int flags) {  // NOLINT(bugprone-reserved-identifier)
  return is_device(AT_FDCWD, path) ? open_device(path, flags) : RINGWAY_REAL(Open2, __open64_2)(path, flags);
}

RINGWAY_HOOK int __openat_2(int folder, const char* path,
                            int flags) {  // NOLINT(bugprone-reserved-identifier)
  return is_device(folder, path) ? open_device(path, flags)
                                 : RINGWAY_REAL(OpenAt2, __openat_2)(folder, path, flags);
}

RINGWAY_HOOK int __openat64_2(int folder, const char* path,
                              int flags) {  // NOLINT(bugprone-reserved-identifier)
  return is_device(folder, path) ? open_device(path, flags)
                                 : RINGWAY_REAL(OpenAt2, __openat64_2)(folder, path, flags);
}

// ---- look

RINGWAY_HOOK int stat(const char* path, struct stat* to) noexcept {
  using Function = int(const char*, struct stat*);
  const auto look = [&] { return RINGWAY_REAL(Function, stat)(path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int stat64(const char* path, struct stat64* to) noexcept {
  using Function = int(const char*, struct stat64*);
  const auto look = [&] { return RINGWAY_REAL(Function, stat64)(path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int lstat(const char* path, struct stat* to) noexcept {
  using Function = int(const char*, struct stat*);
  const auto look = [&] { return RINGWAY_REAL(Function, lstat)(path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int lstat64(const char* path, struct stat64* to) noexcept {
  using Function = int(const char*, struct stat64*);
  const auto look = [&] { return RINGWAY_REAL(Function, lstat64)(path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int fstatat(int folder, const char* path, struct stat* to, int flags) noexcept {
  using Function = int(int, const char*, struct stat*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, fstatat)(folder, path, to, flags); };
  return looking(folder, path, flags, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int fstatat64(int folder, const char* path, struct stat64* to, int flags) noexcept {
  using Function = int(int, const char*, struct stat64*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, fstatat64)(folder, path, to, flags); };
  return looking(folder, path, flags, look, [&] { return describe_node(to); });
}

// What programs call that were linked with a C library before 2.33.
// NOLINTBEGIN(bugprone-reserved-identifier)
RINGWAY_HOOK int __xstat(int version, const char* path, struct stat* to) noexcept {
  using Function = int(int, const char*, struct stat*);
  const auto look = [&] { return RINGWAY_REAL(Function, __xstat)(version, path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int __xstat64(int version, const char* path, struct stat64* to) noexcept {
  using Function = int(int, const char*, struct stat64*);
  const auto look = [&] { return RINGWAY_REAL(Function, __xstat64)(version, path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int __lxstat(int version, const char* path, struct stat* to) noexcept {
  using Function = int(int, const char*, struct stat*);
  const auto look = [&] { return RINGWAY_REAL(Function, __lxstat)(version, path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int __lxstat64(int version, const char* path, struct stat64* to) noexcept {
  using Function = int(int, const char*, struct stat64*);
  const auto look = [&] { return RINGWAY_REAL(Function, __lxstat64)(version, path, to); };
  return looking(AT_FDCWD, path, 0, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int __fxstatat(int version, int folder, const char* path, struct stat* to, int flags) noexcept {
  using Function = int(int, int, const char*, struct stat*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, __fxstatat)(version, folder, path, to, flags); };
  return looking(folder, path, flags, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int __fxstatat64(int version, int folder, const char* path, struct stat64* to,
                              int flags) noexcept {
  using Function = int(int, int, const char*, struct stat64*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, __fxstatat64)(version, folder, path, to, flags); };
  return looking(folder, path, flags, look, [&] { return describe_node(to); });
}

// NOLINTEND(bugprone-reserved-identifier)

RINGWAY_HOOK int statx(int folder, const char* path, int flags, unsigned mask, struct statx* to) noexcept {
  using Function = int(int, const char*, int, unsigned, struct statx*);
  const auto look = [&] { return RINGWAY_REAL(Function, statx)(folder, path, flags, mask, to); };
  return looking(folder, path, flags, look, [&] { return describe_node(to); });
}

RINGWAY_HOOK int access(const char* path, int mode) noexcept {
  using Function = int(const char*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, access)(path, mode); };
  return looking(AT_FDCWD, path, 0, look, [&] { return access_node(mode); });
}

RINGWAY_HOOK int eaccess(const char* path, int mode) noexcept {
  using Function = int(const char*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, eaccess)(path, mode); };
  return looking(AT_FDCWD, path, 0, look, [&] { return access_node(mode); });
}

RINGWAY_HOOK int euidaccess(const char* path, int mode) noexcept {
  using Function = int(const char*, int);
  const auto look = [&] { return RINGWAY_REAL(Function, euidaccess)(path, mode); };
  return looking(AT_FDCWD, path, 0, look, [&] { return access_node(mode); });
}

RINGWAY_HOOK int faccessat(int folder, const char* path, int mode, int flags) noexcept {
  using Function = int(int, const char*, int, int);
  const auto look = [&] { return RINGWAY_REAL(Function, faccessat)(folder, path, mode, flags); };
  return looking(folder, path, flags, look, [&] { return access_node(mode); });
}
