#include "ringway/ring/ring.h"

namespace ringway::ring {

Result<Ring> start(RingConfig config, memory::View view) {
  TRY(config.validate());
  if (config.format.packed) return TRY(PackedRing::start(std::move(config), std::move(view)));
  return TRY(SplitRing::start(std::move(config), std::move(view)));
}

}  // namespace ringway::ring
