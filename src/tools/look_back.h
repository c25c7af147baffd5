// LookBack: what one queue of a bench reads again after its back-end has died: the blocks whose writes were
// acknowledged last, newest first. What was lost with the back-end would otherwise be written over before
// anybody looks. Owned by the thread that drives the queue.
//
// Blocks are claimed in the ledger while they are to be read; and those that were acknowledged very lately in
// any case, because a death is seen a little later than it happens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "ringway/tools/ledger.h"

namespace ringway::tools {

class LookBack {
 public:
  struct Limits {
    size_t remembered = 0;  // blocks
    size_t held = 0;  // the newest, beside these: what was acknowledged before a death, and until it is seen
    // For a queue of so many blocks with so many slots: what is claimed leaves enough for all slots.
    static Limits of(uint64_t blocks, uint64_t slots);
  };
  // `ledger` outlives it.
  LookBack(Ledger& ledger, const Limits& limits) : ledger_(ledger), limits_(limits) {}

  // A write of this block was acknowledged, which has ended its claim.
  void acknowledge(uint64_t block);
  // The same, of a write that was started before a death: it is read again in any case.
  void acknowledge_redone(uint64_t block);
  // The back-end has died. Blocks that others have claimed are not read: a write that is in flight is to
  // follow.
  void begin();
  // A block that is to be read now, claimed; nothing if there is none left.
  std::optional<uint64_t> next();
  // Nothing is claimed or remembered any more.
  void end();
  // What next() has given.
  [[nodiscard]] uint64_t given() const { return given_; }

 private:
  void keep(uint64_t block);

  Ledger& ledger_;
  const Limits limits_;
  std::deque<uint64_t> remembered_;  // oldest first, none of them held
  std::deque<uint64_t> held_;        // oldest first
  std::deque<uint64_t> to_read_;     // the last one first
  uint64_t given_ = 0;
};

}  // namespace ringway::tools
