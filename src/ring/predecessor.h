// What a ring shows of somebody who has served it before and kept no in-flight area. Control thread, before
// it starts.
#pragma once

#include <cstdint>

#include "ringway/ring/config.h"

namespace ringway::ring {

// Of a ring that is used in any order, and begins at its used index: how many of the chains that wait there
// may have been answered already, and as many before them not, if who served it has died. 0: none, or the
// driver's order and that of the answers are the same as far as can be seen. `config` has been validated.
[[nodiscard]] uint32_t doubtful_chains(const RingConfig& config);

}  // namespace ringway::ring
