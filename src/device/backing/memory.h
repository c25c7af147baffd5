// A backing in private anonymous memory: zeros at first, pages come when they are touched and go when they
// are discarded, and everything with the process.
#pragma once

#include "ringway/device/backing/backing.h"

namespace ringway::backing {

// `size`: bytes, whole sectors, at least one.
Result<std::unique_ptr<Backing>> open_memory(uint64_t size, bool read_only = false);

}  // namespace ringway::backing
