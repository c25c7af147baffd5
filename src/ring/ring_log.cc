#include "ringway/ring/ring_log.h"

#include <sys/mman.h>

#include <algorithm>

#include "ringway/memory/guest_ranges.h"

namespace ringway::ring {

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
  const std::span pieces(slot.pieces() + slot.readable, slot.writable);
  std::ranges::copy(pieces, kept(slot, beside).begin());
}

void RingLog::wrote(Slot& slot, const memory::Map& map, iovec* beside) {
  for (const iovec& piece : kept(slot, beside)) {
    memory::each_guest_range(map, piece, [&](uint64_t, memory::GuestAddress guest, uint64_t length) {
      chains_.add(guest, length, *logging_.log);
    });
  }
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
  chains_.mark(*logging_.log);
  areas_.mark(*logging_.log);
  const bool of_chains = chains_.take_news();
  const bool of_areas = areas_.take_news();
  if ((of_chains || of_areas) && logging_.news) logging_.news->signal();
}

}  // namespace ringway::ring
