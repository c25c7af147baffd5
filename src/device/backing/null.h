// A backing without bytes, to measure everything else with: writes vanish, and reads leave the buffers as
// they are. That leaks nothing, for the buffers are the reader's own memory; and it costs nothing, which is
// the point.
#pragma once

#include "ringway/device/backing/backing.h"

namespace ringway::backing {

// `size`: bytes, whole sectors, at least one.
Result<std::unique_ptr<Backing>> open_null(uint64_t size, bool read_only = false);

}  // namespace ringway::backing
