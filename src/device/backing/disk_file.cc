#include "ringway/device/backing/disk_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <bit>
#include <fstream>

#include "ringway/base/log.h"
#include "ringway/base/retry.h"

namespace ringway::backing {
namespace {

// What the kernel is asked to punch or zero at once. It does so in the background; a driver may have to wait
// for it.
constexpr uint64_t max_discard = uint64_t{1} << 30;
constexpr uint64_t max_write_zeroes = uint64_t{256} << 20;
constexpr uint64_t max_secure_erase = uint64_t{256} << 20;
constexpr uint32_t safe_alignment = 4096;  // where the kernel does not say

// QEMU's way of sharing images (its "permissions"): who may do X holds a read lock on byte 100 + x, and who
// lets nobody else do X one on byte 200 + x. x is 1 for writing.
constexpr off_t qemu_writes = 101;
constexpr off_t qemu_nobody_else_writes = 201;

std::string own_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

// Sets a lock, or asks whether it could be set: 0, EAGAIN if another process has it, or why it is impossible.
int lock(int fd, int command, short type, off_t start, off_t length) {
  struct flock range{};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  if (::fcntl(fd, command, &range) != 0) return errno == EACCES ? EAGAIN : errno;
  return command == F_OFD_GETLK && range.l_type != F_UNLCK ? EAGAIN : 0;
}

// One writer, or any number of readers. Who cannot have all of it keeps nothing.
int try_lock(int fd, bool read_only) {
  if (!read_only) return lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0);
  if (const int error = lock(fd, F_OFD_SETLK, F_RDLCK, qemu_nobody_else_writes, 1); error != 0) return error;
  const int error = lock(fd, F_OFD_GETLK, F_WRLCK, qemu_writes, 1);
  if (error != 0) lock(fd, F_OFD_SETLK, F_UNLCK, qemu_nobody_else_writes, 1);
  return error;
}

Result<> lock_for(int fd, bool read_only) {
  int error = 0;
  retry_for(last_moment, [&] {
    error = try_lock(fd, read_only);
    return error != EAGAIN;
  });
  if (error == EAGAIN) return refused("another process uses this disk");
  if (error != 0) log::warning("cannot lock the disk ({}): nothing keeps others from using it", error);
  return {};
}

Result<UniqueFd> open_for_io(int path_fd, bool block_device, FileOptions options) {
  int flags = O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR) | (options.direct ? O_DIRECT : 0);
  if (block_device && !options.read_only) flags |= O_EXCL;  // refuses one that is mounted
  UniqueFd fd(::open(own_path(path_fd).c_str(), flags));
  if (fd) return fd;
  if (errno == EINVAL && options.direct)
    return refused("the file system does not support direct I/O (O_DIRECT)");
  if (errno == EBUSY) return refused("the block device is in use (mounted?)");
  if (options.read_only) return os_failure("cannot open the disk for reading");
  return os_failure("cannot open the disk for writing");
}

Result<> check_inherited(int fd, const struct stat& wanted, FileOptions options) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_failure("cannot examine the disk");
  if (status.st_dev != wanted.st_dev || status.st_ino != wanted.st_ino)
    return refused("is another file than the one that is served now");
  const int flags = ::fcntl(fd, F_GETFL);
  const bool may_write = (flags & O_ACCMODE) == O_RDWR;
  if (flags < 0 || may_write == options.read_only)
    return refused("is served read-only, or is to be; not both");
  return {};
}

uint64_t number_in(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  return file >> number ? number : 0;
}

uint32_t bounded(uint64_t value) { return static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX)); }

// Asked without a range, a device that cannot (since Linux 5.19) says so before it looks for one. Nothing is
// erased.
bool erases_securely(int fd) { return ::ioctl(fd, BLKSECDISCARD, nullptr) != 0 && errno == EFAULT; }

void describe_block_device(DiskFile& file, dev_t device) {
  Geometry& geometry = file.geometry;
  const int fd = file.fd.get();
  int logical = sector_size;
  unsigned physical = 0;
  unsigned minimum = 0;
  unsigned optimal = 0;
  ::ioctl(fd, BLKSSZGET, &logical);
  ::ioctl(fd, BLKPBSZGET, &physical);
  ::ioctl(fd, BLKIOMIN, &minimum);
  ::ioctl(fd, BLKIOOPT, &optimal);
  geometry.logical_block_size = static_cast<uint32_t>(std::max<int>(logical, sector_size));
  geometry.physical_block_size = std::max(physical, geometry.logical_block_size);
  geometry.minimum_io_size = minimum;
  geometry.optimal_io_size = optimal;
  file.allocation_alignment = geometry.logical_block_size;

  const std::string sys = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
  std::string queue = sys + "/queue/";
  if (number_in(queue + "logical_block_size") == 0) queue = sys + "/../queue/";  // a partition
  if (file.options.read_only) return;
  if (erases_securely(fd)) geometry.max_secure_erase = max_secure_erase;
  if (number_in(queue + "discard_max_bytes") > 0) {
    file.punches = geometry.unmapping_zeroes = number_in(queue + "write_zeroes_max_bytes") > 0;
    geometry.max_discard = max_discard;
    geometry.discard_granularity =
        std::max(bounded(number_in(queue + "discard_granularity")), geometry.logical_block_size);
    geometry.discard_alignment = bounded(number_in(sys + "/discard_alignment"));
  }
}

void describe_regular_file(DiskFile& file, const struct stat& status) {
  struct statfs system{};
  file.in_memory = ::fstatfs(file.fd.get(), &system) == 0 &&
                   (system.f_type == TMPFS_MAGIC || static_cast<unsigned long>(system.f_type) == RAMFS_MAGIC);
  Geometry& geometry = file.geometry;
  // Some file systems call a megabyte their block.
  const auto block =
      std::bit_floor(static_cast<uint32_t>(std::clamp<long>(status.st_blksize, sector_size, safe_alignment)));
  geometry.physical_block_size = block;
  if (status.st_blksize > safe_alignment)
    geometry.optimal_io_size = bounded(static_cast<uint64_t>(status.st_blksize));
  // Past the end there is nothing to lose.
  constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const off_t past_the_end = (status.st_size / safe_alignment + 1) * safe_alignment;
  if (!file.options.read_only && ::fallocate(file.fd.get(), punch, past_the_end, safe_alignment) == 0) {
    geometry.max_discard = max_discard;
    geometry.unmapping_zeroes = true;
    geometry.discard_granularity = block;
  }
}

Result<> find_alignment(DiskFile& file) {
  file.memory_alignment = file.offset_alignment =
      file.block_device ? file.geometry.logical_block_size : safe_alignment;
  struct statx status{};
  if (::statx(file.fd.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {
    if (status.stx_dio_offset_align == 0)
      return refused("direct I/O (O_DIRECT) is not possible on this file");
    file.memory_alignment = std::bit_ceil(std::max<uint32_t>(status.stx_dio_mem_align, 1));
    file.offset_alignment = std::bit_ceil(std::max<uint32_t>(status.stx_dio_offset_align, 1));
  }
  file.geometry.physical_block_size = std::max(file.geometry.physical_block_size, file.offset_alignment);
  return {};
}

}  // namespace

Result<DiskFile> DiskFile::open(const std::string& path, FileOptions options, UniqueFd inherited) {
  // Looked at before it is really opened, for opening a device of another kind may do something.
  const UniqueFd look(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!look) return os_failure("cannot open the disk");
  struct stat status{};
  if (::fstat(look.get(), &status) != 0) return os_failure("cannot examine the disk");
  if (S_ISDIR(status.st_mode)) return refused("is a directory; a disk is a regular file or a block device");
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    return refused("is neither a regular file nor a block device");

  DiskFile file;
  file.options = options;
  file.block_device = S_ISBLK(status.st_mode);
  if (inherited) {
    TRY(check_inherited(inherited.get(), status, options));
    file.fd = std::move(inherited);
  } else {
    file.fd = TRY(open_for_io(look.get(), file.block_device, options));
  }
  if (!options.lock_while_running) TRY(file.lock());
  if (file.block_device) {
    int write_protected = 0;
    if (!options.read_only && ::ioctl(file.fd.get(), BLKROGET, &write_protected) == 0 &&
        write_protected != 0) {
      return refused("the block device is read-only");
    }
    describe_block_device(file, status.st_rdev);
  } else {
    describe_regular_file(file, status);
  }
  file.geometry.max_write_zeroes = max_write_zeroes;
  if (options.direct && !file.in_memory) TRY(find_alignment(file));
  return file;
}

Result<uint64_t> DiskFile::size() const {
  uint64_t bytes = 0;
  if (block_device) {
    if (::ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0)
      return os_failure("cannot tell the size of the block device");
    return bytes;
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return os_failure("cannot tell the size of the file");
  return static_cast<uint64_t>(status.st_size);
}

Result<> DiskFile::lock() const { return lock_for(fd.get(), options.read_only); }

void DiskFile::unlock() const {
  struct flock range{};
  range.l_type = F_UNLCK;
  range.l_whence = SEEK_SET;
  ::fcntl(fd.get(), F_OFD_SETLK, &range);
}

Result<UniqueFd> DiskFile::reopen(bool direct) const {
  const int flags = O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
  UniqueFd own(::open(own_path(fd.get()).c_str(), flags));
  if (!own) return os_failure("cannot open the disk once more");
  return own;
}

Result<LaneFiles> LaneFiles::open(const DiskFile& file) {
  LaneFiles files{.fd = TRY(file.reopen(file.options.direct)), .buffered = {}};
  if (file.offset_alignment > sector_size) files.buffered = TRY(file.reopen(false));
  return files;
}

Result<std::unique_ptr<SharedFile>> SharedFile::open(DiskFile file, size_t lanes) {
  std::unique_ptr<SharedFile> shared(new SharedFile(std::move(file)));
  for (size_t i = 0; i < lanes; ++i) shared->give_back(TRY(LaneFiles::open(shared->file)));
  return shared;
}

Result<LaneFiles> SharedFile::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      LaneFiles files = std::move(spare_.back());
      spare_.pop_back();
      return files;
    }
  }
  return LaneFiles::open(file);
}

void SharedFile::give_back(LaneFiles files) {
  const std::lock_guard lock(mutex_);
  spare_.push_back(std::move(files));
}

}  // namespace ringway::backing
