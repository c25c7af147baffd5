// DirtyLog: the bitmap in which a migrating front-end learns what was written, one bit for each 4 KiB page of
// guest-physical memory from address 0 (vhost-user "Migration", SET_LOG_BASE). Immutable but for the bits,
// which the front-end and other back-ends change too: any thread may mark.
// DirtyPages: what one thread has written and not yet marked. Owned by that thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "ringway/base/mapping.h"
#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/memory/address.h"
#include "ringway/memory/fault_guard.h"
#include "ringway/memory/map.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::memory {

class DirtyLog {
 public:
  static constexpr uint64_t page_bytes = 4096;  // VHOST_LOG_PAGE

  // `size` bytes from `offset` in the file. Refuses no size, a range that wraps, and one that ends behind the
  // file.
  static Result<std::shared_ptr<const DirtyLog>> open(const UniqueFd& fd, uint64_t size, uint64_t offset);
  // A log in memory of this process, for a front-end that lives in it: nothing is mapped, and it may be
  // unmapped under us (see FaultGuard). Only for who asks for it by name, as Region::borrow(). Refuses no
  // size and a range that wraps.
  static Result<std::shared_ptr<const DirtyLog>> borrow(FrontEndAddress at, uint64_t size);

  // Whether there is a bit for every page of the range, or of all regions.
  [[nodiscard]] bool covers(GuestAddress address, uint64_t length) const;
  [[nodiscard]] bool covers(const Map& map) const;
  // Marks pages [first, last], as far as there are bits for them. What was written to them must be visible to
  // other threads: see DirtyPages. True if a page was not marked before.
  bool mark(uint64_t first, uint64_t last) const {
    // A bit that is set stays set until the front-end has taken it, so it need not be set again: the load is
    // cheap, the atomic operation is not. Most ranges are of one page, which is marked already.
    if (first == last && first < pages_) [[likely]] {
      const auto byte = load<uint8_t>(bits_ + first / 8);
      if ((byte >> first % 8 & 1) != 0) return false;
    }
    return mark_slowly(first, last);
  }

 private:
  bool mark_slowly(uint64_t first, uint64_t last) const;
  Mapping mapping_;
  FaultGuard guard_;
  std::byte* bits_ = nullptr;
  uint64_t pages_ = 0;  // that have a bit
};

class DirtyPages {
 public:
  // The bytes were written. `length` may be 0, which is nothing. Marks what it has if it is full.
  void add(GuestAddress address, uint64_t length, const DirtyLog& log) {
    if (length == 0) return;
    const uint64_t first = address.value / DirtyLog::page_bytes;
    const uint64_t last = (address.value + (length - 1)) / DirtyLog::page_bytes;
    if (count_ > 0) {
      Range& before = ranges_[count_ - 1];
      if (first >= before.first && first <= before.last + 1) {
        before.last = last > before.last ? last : before.last;
        return;
      }
    }
    if (count_ == ranges_.size()) mark(log);
    ranges_[count_++] = {first, last};
  }
  // Marks all that was added, and forgets it.
  void mark(const DirtyLog& log);
  // The same for who has had a full fence since it wrote: a front-end that takes a bit away and then reads
  // the page must find what was written before we saw the bit set.
  void mark_behind_fence(const DirtyLog& log) {
    for (uint32_t i = 0; i < count_; ++i) {
      if (log.mark(ranges_[i].first, ranges_[i].last)) news_ = true;
    }
    count_ = 0;
  }
  [[nodiscard]] bool is_empty() const { return count_ == 0; }
  // Whether a page was marked that was not, since this was asked last.
  [[nodiscard]] bool take_news() { return std::exchange(news_, false); }

 private:
  struct Range {
    uint64_t first;
    uint64_t last;
  };
  uint32_t count_ = 0;
  bool news_ = false;
  std::array<Range, 64> ranges_;
};

}  // namespace ringway::memory
