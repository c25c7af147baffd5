// DiskFile: an opened and locked file or block device, and what is known of it. Immutable; any thread.
#pragma once

#include <string>

#include "ringway/base/unique_fd.h"
#include "ringway/device/backing/file.h"

namespace ringway::backing {

struct DiskFile {
  static Result<DiskFile> open(const std::string& path, FileOptions options);

  // Bytes, now.
  [[nodiscard]] Result<uint64_t> size() const;
  // Locks against other processes that use the disk, with lock_while_running; open() does without it.
  [[nodiscard]] Result<> lock() const;
  void unlock() const;
  // A file description of its own, so that it hears of every failed write-back for itself (see FileLane).
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

}  // namespace ringway::backing
