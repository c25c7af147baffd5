// Ring: a running virtqueue, device half. Owned by one worker thread. VIRTIO "Split Virtqueues", "Packed
// Virtqueues". SplitRing (split.h) and PackedRing (packed.h) have the same functions; which one it is is
// decided once, at start.
//
//   Result<Chain> pop();                  the next available chain; an empty Chain: nothing, or missing();
//                                         error: broken for good
//   Result<size_t> pop(std::span<Chain>); the next ones, as many as are walked already; none: as pop()
//   std::optional<memory::Translation> missing();   why pop() gave nothing: an IOTLB miss; pop() tries again
//   void push_used(Chain, uint32_t written);   not visible before publish()
//   void push_used(std::span<Chain>);     the same for several in which nothing was written; in order, one
//   entry may stand for all
//   void push_back(Chain);                the chain popped last was not touched: it will be popped again.
//   Several go back
//                                         in the reverse of the order in which they were popped
//   void abandon(Chain);                  ends it unanswered, when the ring is to stop for good
//   bool publish();                       shows what was pushed; true: the driver wants a call
//   void disable_kicks();
//   bool enable_kicks();                  true: something is available already. That may be a chain that
//   pop() has just
//                                         refused to give, because of missing() or because too many long ones
//                                         are in flight
//   void set_view(memory::View);          later pops translate through it; chains in flight keep theirs
//   void set_log(std::unique_ptr<RingLog>);  what is written is logged, see Chains::set_log; none: nothing
//   void set_steady(size_t bytes);        see Chains::set_steady
//   bool is_tracked();                    in an in-flight area (inflight.h)
//   uint32_t in_flight();  uint32_t size();
//   RingBase base();                      where to continue: popped chains count, whatever was looked at
//   ahead does not RingConfig stop() &&;                 the configuration again, with that base; the ring is
//   gone
#pragma once

#include <variant>

#include "ringway/ring/config.h"
#include "ringway/ring/packed.h"
#include "ringway/ring/split.h"

namespace ringway::ring {

using Ring = std::variant<SplitRing, PackedRing>;

// Validates the configuration as a whole and starts; the ring is whatever `config.format` says. Nothing is in
// flight.
Result<Ring> start(RingConfig config, memory::View view);

}  // namespace ringway::ring
