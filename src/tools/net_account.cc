#include "ringway/tools/net_account.h"

#include <algorithm>

namespace ringway::tools {

Arrivals::Kind Arrivals::see(uint64_t sequence) {
  if (sequence >= next_) {
    forget(next_, sequence);
    word(sequence) |= mask(sequence);
    next_ = sequence + 1;
    return Kind::in_order;
  }
  if (next_ - sequence > memory || (word(sequence) & mask(sequence)) != 0) return Kind::duplicate;
  word(sequence) |= mask(sequence);
  return Kind::late;
}

// What is between has not come yet.
void Arrivals::forget(uint64_t begin, uint64_t end) {
  if (end - begin >= memory) {
    std::fill(seen_.begin(), seen_.end(), 0);
    return;
  }
  for (uint64_t sequence = begin; sequence <= end; ++sequence) word(sequence) &= ~mask(sequence);
}

void NetAccount::add(const NetAccount& other) {
  sent += other.sent;
  received += other.received;
  late += other.late;
  duplicates += other.duplicates;
  changed += other.changed;
  foreign += other.foreign;
}

}  // namespace ringway::tools
