// RingLog: what a running ring writes, as a migrating front-end must learn it: the writable pieces of its
// chains, and the ring's own areas. Owned by the ring's thread. vhost-user "Migration".
#pragma once

#include <memory>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/base/notifier.h"
#include "ringway/memory/dirty_log.h"
#include "ringway/ring/chain.h"

namespace ringway::ring {

// Where a part of a ring's area lies in guest-physical memory.
struct LoggedRange {
  uint64_t offset = 0;  // bytes into the area
  uint64_t length = 0;  // bytes
  memory::GuestAddress guest;
};

// What is logged, and where. Immutable once given to a ring.
struct Logging {
  std::shared_ptr<const memory::DirtyLog> log;
  std::shared_ptr<const Notifier> news;  // told of pages that were not marked (SET_LOG_FD); may be none
  // Areas that the device writes to, VHOST_VRING_F_LOG; else empty.
  std::vector<LoggedRange> desc;    // packed rings
  std::vector<LoggedRange> device;  // used ring, or device event suppression
};

class RingLog {
 public:
  // For a ring of `size` entries.
  static Result<std::unique_ptr<RingLog>> create(uint32_t size, Logging logging);
  RingLog() = default;
  RingLog(const RingLog&) = delete;
  RingLog& operator=(const RingLog&) = delete;
  ~RingLog() {
    if (logging_.log != nullptr) mark();
  }
  // Marks what was written so far in the old log, and goes on with another.
  void change(Logging logging);

  // Keeps the writable pieces of a chain, which its cursor will eat. `beside` has room for those that do not
  // fit a slot.
  void keep(Slot& slot, iovec* beside);
  // The chain has ended: what is writable may have been written. `map` is the one that its pieces point into.
  void wrote(Slot& slot, const memory::Map& map, iovec* beside);
  // Bytes of the ring's areas were written.
  void wrote_desc(uint64_t offset, uint64_t length) { wrote_area(logging_.desc, offset, length); }
  void wrote_device(uint64_t offset, uint64_t length) { wrote_area(logging_.device, offset, length); }
  // Marks all of that.
  void mark();
  // The same for who has had a full fence since it wrote.
  void mark_behind_fence();
  // The maps of later chains may lie where that of earlier ones has lain.
  void forget_map() { map_ = nullptr; }

 private:
  [[nodiscard]] std::span<iovec> kept(Slot& slot, iovec* beside) const {
    return {slot.spilled ? beside : kept_ + size_t{slot.index} * Slot::inline_pieces, slot.writable};
  }
  void wrote_anywhere(const iovec& piece, const memory::Map& map);
  void wrote_area(const std::vector<LoggedRange>& area, uint64_t offset, uint64_t length);

  Logging logging_;
  const memory::Map* map_ = nullptr;        // into which the last piece pointed,
  const memory::Region* region_ = nullptr;  // and where in it
  Mapping storage_;
  iovec* kept_ = nullptr;  // Slot::inline_pieces for each ring entry
  memory::DirtyPages chains_;
  memory::DirtyPages areas_;
};

}  // namespace ringway::ring
