// Walks over the buffers of a chain in the order that descriptors must have: readable ones first.
#pragma once

#include "ringway/ring/driver_config.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {

// Calls use(buffer, VRING_DESC_F_WRITE or 0, whether it is the last).
template <class Use>
void each_buffer(const Buffers& buffers, Use&& use) {
  uint32_t left = buffers.count();
  for (const Buffer& buffer : buffers.readable) use(buffer, uint16_t{0}, --left == 0);
  for (const Buffer& buffer : buffers.writable) use(buffer, uint16_t{VRING_DESC_F_WRITE}, --left == 0);
}

}  // namespace ringway::ring
