// The way back from our addresses to the guest's. Any thread.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>

#include "ringway/memory/map.h"

namespace ringway::memory {

// Calls visit(offset into the piece, guest address, length) for each part of it that lies in a region. A
// piece may span regions that are neighbours in our memory and far apart in the guest's.
template <class Visit>
void each_guest_range(const Map& map, const iovec& piece, Visit&& visit) {
  const auto* const begin = static_cast<const std::byte*>(piece.iov_base);
  const auto* const end = begin + piece.iov_len;
  for (const auto& region : map.regions()) {
    const std::byte* const start = region->data();
    const std::byte* const first = std::max(begin, start);
    const std::byte* const last = std::min(end, start + region->layout().size);
    if (first >= last) continue;
    const auto length = static_cast<uint64_t>(last - first);
    visit(static_cast<uint64_t>(first - begin),
          GuestAddress{region->layout().guest.value + static_cast<uint64_t>(first - start)}, length);
    if (length == piece.iov_len) return;
  }
}

}  // namespace ringway::memory
