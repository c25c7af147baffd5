// A backing in private anonymous memory, or in shared memory: zeros at first, pages come when they are
// touched and go when they are discarded, and everything with the process.
#pragma once

#include "ringway/device/backing/backing.h"

namespace ringway::backing {

// `size`: bytes, whole sectors, at least one.
Result<std::unique_ptr<Backing>> open_memory(uint64_t size, bool read_only = false);

// The same in a file without a name, which another process can be given; most kernels have no huge pages for
// it. `inherited`: what hand_over() gave.
Result<std::unique_ptr<Backing>> open_shared_memory(uint64_t size, bool read_only = false,
                                                    UniqueFd inherited = {});

}  // namespace ringway::backing
