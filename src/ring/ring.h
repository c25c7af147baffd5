// Ring: a running virtqueue, device half. Owned by one worker thread. VIRTIO "Split Virtqueues", "Packed Virtqueues".
// SplitRing (split.h) and PackedRing (packed.h) have the same functions; which one it is is decided once, at start.
//
//   Result<std::optional<Chain>> pop();   the next available chain; nothing: empty, or missing(); error: broken for good
//   std::optional<memory::Translation> missing();   why pop() gave nothing: an IOTLB miss; pop() tries again
//   void push_used(Chain, uint32_t written);   not visible before publish()
//   void push_back(Chain);                the chain popped last was not touched: it will be popped again
//   bool publish();                       shows what was pushed; true: the driver wants a call
//   void disable_kicks();
//   bool enable_kicks();                  true: something is available already
//   void set_view(memory::View);          later pops translate through it; chains in flight keep theirs
//   uint32_t in_flight();  uint32_t size();  RingBase base();
#pragma once

#include <optional>
#include <variant>

#include "ringway/ring/chain.h"
#include "ringway/ring/config.h"
#include "ringway/ring/packed.h"
#include "ringway/ring/split.h"

namespace ringway::ring {

// Chains longer than this many pieces break the ring (VIRTIO lets a device limit indirect tables), unless the ring itself is longer.
inline constexpr uint32_t max_chain_pieces = 1024;

using Ring = std::variant<SplitRing, PackedRing>;

// Validates the configuration as a whole and starts; the ring is whatever `config.format` says.
Result<Ring> start(RingConfig config, memory::View view);

}  // namespace ringway::ring
