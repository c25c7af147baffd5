// DiskFile: an opened and locked file or block device, and what is known of it; immutable. SharedFile: one
// with what its lanes share. Any thread.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "ringway/base/unique_fd.h"
#include "ringway/device/backing/file.h"

namespace ringway::backing {

struct DiskFile {
  // `inherited`: opened and locked already, by a process that hands it over.
  static Result<DiskFile> open(const std::string& path, FileOptions options, UniqueFd inherited = {});

  // Bytes, now.
  [[nodiscard]] Result<uint64_t> size() const;
  // Locks against other processes that use the disk, with lock_while_running; open() does without it.
  [[nodiscard]] Result<> lock() const;
  void unlock() const;
  // A file description of its own, so that it hears of every failed write-back for itself (see FileLane).
  // Blocks while the disk hangs.
  [[nodiscard]] Result<UniqueFd> reopen(bool direct) const;

  UniqueFd fd;  // holds the lock
  FileOptions options;
  bool block_device = false;
  bool in_memory = false;  // tmpfs or ramfs: transfers never wait for a medium
  // All powers of two, in bytes; 1: anything goes.
  uint32_t memory_alignment = 1;      // of each piece, address and length, with O_DIRECT
  uint32_t offset_alignment = 1;      // of offset and length, with O_DIRECT
  uint32_t allocation_alignment = 1;  // of the ranges that fallocate takes
  // Of a block device: it zeroes by unmapping, so punching holes discards. Else an ioctl does, which says
  // nothing of what is read afterwards.
  bool punches = true;
  Geometry geometry;
};

// A lane's own file descriptions.
struct LaneFiles {
  static Result<LaneFiles> open(const DiskFile& file);

  UniqueFd fd;
  UniqueFd buffered;  // direct only: for requests smaller than O_DIRECT can do
};

// A worker must not wait for a disk that hangs, so descriptions are opened before there are lanes. A lane
// gives its own back, for the next: what they have not told yet of failed writes, they tell then.
class SharedFile {
 public:
  static Result<std::unique_ptr<SharedFile>> open(DiskFile file, size_t lanes);

  // Opens others, and may block, only if more lanes are open than were expected.
  Result<LaneFiles> take();
  void give_back(LaneFiles files);

  const DiskFile file;
  std::atomic<bool> failed = false;  // a sync has failed, and nothing is written any more

 private:
  explicit SharedFile(DiskFile opened) : file(std::move(opened)) {}

  std::mutex mutex_;
  std::vector<LaneFiles> spare_;
};

}  // namespace ringway::backing
