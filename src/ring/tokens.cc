#include "ringway/ring/tokens.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace ringway::ring {

void Tokens::add(uint16_t token, uint32_t descriptors, uint16_t last, uint64_t writable) {
  Entry& entry = entries_[token];
  assert(!entry.busy);
  if (!order_.empty()) {
    order_[order_end_] = token;
    step(order_end_);
  }
  entry = {.sequence = added_++,
           .writable = writable,
           .descriptors = static_cast<uint16_t>(descriptors),
           .last = last,
           .busy = true};
}

Result<> Tokens::accept(uint32_t id, uint32_t written) {
  if (id >= entries_.size()) return violation("used id is not in the ring", id);
  const Entry& entry = entries_[id];
  if (!entry.busy || entry.sequence >= published_) return violation("used id is not in flight", id);
  accepted_ = order_.empty() ? 1 : static_cast<uint32_t>(entry.sequence - taken_ + 1);
  token_ = static_cast<uint16_t>(id);
  written_ = written;
  return {};
}

Used Tokens::take() {
  const bool is_named = --accepted_ == 0;
  Used used{.token = is_named ? token_ : order_[order_begin_]};
  if (!order_.empty()) step(order_begin_);
  ++taken_;
  Entry& entry = entries_[used.token];
  entry.busy = false;
  // Chains that the device skipped have been used completely ("In-order use of descriptors").
  const uint64_t claimed = is_named ? written_ : entry.writable;
  used.written = static_cast<uint32_t>(std::min({claimed, entry.writable, uint64_t{UINT32_MAX}}));
  used.overlong = claimed > entry.writable;
  return used;
}

}  // namespace ringway::ring
