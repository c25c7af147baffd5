// A port to nowhere: what is sent is read, every byte of it, and dropped. On demand also a source of frames
// that never ends. For measurements. Thread rule: as Port.
#pragma once

#include <memory>

#include "ringway/device/port/port.h"

namespace ringway::port {

struct NullOptions {
  uint32_t send =
      0;  // bytes of the frames that every receive queue is kept full of; 0: none. At least min_frame
};

std::unique_ptr<Port> open_null(const NullOptions& options);

}  // namespace ringway::port
