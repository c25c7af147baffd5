#include "ringway/ring/ring_log.h"

#include <sys/mman.h>

#include <algorithm>

#include "ringway/memory/guest_ranges.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {
namespace {

uint64_t address_of(const void* at) { return reinterpret_cast<uint64_t>(at); }

}  // namespace

Result<std::unique_ptr<RingLog>> RingLog::create(uint32_t size, Logging logging) {
  auto log = std::make_unique<RingLog>();
  log->storage_ = TRY(Mapping::anonymous(size_t{size} * Slot::inline_pieces * sizeof(iovec)));
  ::madvise(log->storage_.data(), log->storage_.size(), MADV_NOHUGEPAGE);
  log->kept_ = reinterpret_cast<iovec*>(log->storage_.data());
  log->logging_ = std::move(logging);
  return log;
}

void RingLog::change(Logging logging) {
  mark();
  logging_ = std::move(logging);
}

void RingLog::keep(Slot& slot, iovec* beside) {
  copy_pieces({slot.pieces() + slot.readable, slot.writable}, kept(slot, beside).data());
}

void RingLog::wrote(Slot& slot, const memory::Map& map, iovec* beside) {
  for (const iovec& piece : kept(slot, beside)) {
    if (map_ == &map) [[likely]] {
      const uint64_t offset = address_of(piece.iov_base) - address_of(region_->data());
      const memory::RegionLayout& layout = region_->layout();
      if (offset < layout.size && piece.iov_len <= layout.size - offset) [[likely]] {
        chains_.add({layout.guest.value + offset}, piece.iov_len, *logging_.log);
        continue;
      }
    }
    wrote_anywhere(piece, map);
  }
}

void RingLog::wrote_anywhere(const iovec& piece, const memory::Map& map) {
  memory::each_guest_range(map, piece, [&](uint64_t, memory::GuestAddress guest, uint64_t length) {
    chains_.add(guest, length, *logging_.log);
    map_ = &map;
    region_ = map.find(guest);
  });
}

void RingLog::wrote_area(const std::vector<LoggedRange>& area, uint64_t offset, uint64_t length) {
  for (const LoggedRange& range : area) {
    const uint64_t first = std::max(offset, range.offset);
    const uint64_t end = std::min(offset + length, range.offset + range.length);
    if (first >= end) continue;
    areas_.add({range.guest.value + (first - range.offset)}, end - first, *logging_.log);
  }
}

void RingLog::mark() {
  if (chains_.is_empty() && areas_.is_empty()) return;
  full_fence();
  mark_behind_fence();
}

void RingLog::mark_behind_fence() {
  chains_.mark_behind_fence(*logging_.log);
  areas_.mark_behind_fence(*logging_.log);
  const bool of_chains = chains_.take_news();
  const bool of_areas = areas_.take_news();
  if ((of_chains || of_areas) && logging_.news) logging_.news->signal();
}

}  // namespace ringway::ring
