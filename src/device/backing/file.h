// A backing in a regular file or on a block device; its bytes are the disk's, no image format is ever
// guessed.
#pragma once

#include <string>

#include "ringway/base/unique_fd.h"
#include "ringway/device/backing/backing.h"

namespace ringway::backing {

struct FileOptions {
  bool read_only = false;
  bool direct = false;  // past the page cache (O_DIRECT)
  // The disk is locked only from Backing::resume to Backing::suspend, so that a second process may have it
  // open already, and go on with it when this one has stopped.
  bool lock_while_running = false;
  size_t lanes = 1;  // that may be open at once without opening the file again (see SharedFile)
};

// Refuses everything that is neither file nor block device, and a file that somebody else writes (or, unless
// read_only, uses): the locks are those of QEMU, so it is told apart as well. After a failed flush every
// later flush and write fails, for the kernel may have dropped what it could not write; only opening again
// ends that. `inherited`: what hand_over() of another process gave; `path` must still be the same file.
Result<std::unique_ptr<Backing>> open_file(const std::string& path, FileOptions options,
                                           UniqueFd inherited = {});

}  // namespace ringway::backing
