#include "ringway/preload/device_node.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "ringway/kernel/caller.h"

namespace ringway::preload {
namespace {

constexpr unsigned major_number = 10;   // of all that are "misc"
constexpr unsigned minor_number = 238;  // VHOST_NET_MINOR
constexpr mode_t node_mode = S_IFCHR | S_IRUSR | S_IWUSR;
constexpr int block_size = 4096;

template <class Status>
int give(Status* to, const Status& status) {
  kernel::OwnProcess own;
  const auto given = own.give(reinterpret_cast<uintptr_t>(to), status);
  return given ? 0 : -given.error().os_error;
}

template <class Status>
int describe(Status* to) {
  Status status{};
  status.st_ino = minor_number;
  status.st_nlink = 1;
  status.st_mode = node_mode;
  status.st_uid = ::geteuid();
  status.st_gid = ::getegid();
  status.st_rdev = makedev(major_number, minor_number);
  status.st_blksize = block_size;
  return give(to, status);
}

}  // namespace

int describe_node(struct stat* to) { return describe(to); }
int describe_node(struct stat64* to) { return describe(to); }

int describe_node(struct statx* to) {
  struct statx status{};
  status.stx_mask = STATX_BASIC_STATS;
  status.stx_ino = minor_number;
  status.stx_nlink = 1;
  status.stx_mode = node_mode;
  status.stx_uid = ::geteuid();
  status.stx_gid = ::getegid();
  status.stx_rdev_major = major_number;
  status.stx_rdev_minor = minor_number;
  status.stx_blksize = block_size;
  return give(to, status);
}

int access_node(int mode) {
  if ((mode & ~(R_OK | W_OK | X_OK)) != 0) return -EINVAL;
  return (mode & X_OK) != 0 ? -EACCES : 0;
}

}  // namespace ringway::preload
