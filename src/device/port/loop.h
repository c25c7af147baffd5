// A port that is plugged into itself: what a pair of queues transmits the same pair receives, in order.
// Frames for which there are no buffers are dropped. For tests and measurements. Thread rule: as Port.
#pragma once

#include <memory>

#include "ringway/device/port/port.h"

namespace ringway::port {

std::unique_ptr<Port> open_loop();

}  // namespace ringway::port
