#include "ringway/memory/iotlb.h"

#include <algorithm>

namespace ringway::memory {
namespace {

uint64_t last_of(const IotlbEntry& entry) { return entry.iova.value + (entry.size - 1); }

// The last address of a range, which is clipped at the end of the address space.
uint64_t last_of(GuestAddress iova, uint64_t size) {
  uint64_t last = 0;
  return __builtin_add_overflow(iova.value, size - 1, &last) ? UINT64_MAX : last;
}

}  // namespace

std::shared_ptr<const IotlbTable> IotlbTable::empty() { return std::make_shared<const IotlbTable>(); }

Result<std::shared_ptr<const IotlbTable>> IotlbTable::with(const IotlbEntry& entry) const {
  uint64_t last = 0;
  if (entry.size == 0 || __builtin_add_overflow(entry.iova.value, entry.size - 1, &last) ||
      __builtin_add_overflow(entry.front_end.value, entry.size - 1, &last)) {
    return refused("IOTLB entry is empty or wraps", entry.size);
  }
  auto table = std::make_shared<IotlbTable>(*this);
  table->erase(entry.iova, entry.size);
  if (table->entries_.size() >= max_entries) {
    // Any victim is right; spreading them over the table keeps one hot page from being hit again and again.
    const size_t victim = (entry.iova.value >> 12) * 0x9e3779b97f4a7c15ULL % table->entries_.size();
    table->entries_.erase(table->entries_.begin() + static_cast<ptrdiff_t>(victim));
  }
  const auto at = std::ranges::upper_bound(table->entries_, entry.iova, {}, &IotlbEntry::iova);
  table->entries_.insert(at, entry);
  return table;
}

std::shared_ptr<const IotlbTable> IotlbTable::without(GuestAddress iova, uint64_t size) const {
  auto table = std::make_shared<IotlbTable>(*this);
  table->erase(iova, size);
  return table;
}

void IotlbTable::erase(GuestAddress iova, uint64_t size) {
  if (size == 0) return;
  const uint64_t last = last_of(iova, size);
  std::erase_if(entries_, [&](const IotlbEntry& entry) {
    return entry.iova.value <= last && last_of(entry) >= iova.value;
  });
}

const IotlbEntry* IotlbTable::find(GuestAddress iova) const {
  const auto after = std::ranges::upper_bound(entries_, iova, {}, &IotlbEntry::iova);
  if (after == entries_.begin()) return nullptr;
  const IotlbEntry& candidate = *std::prev(after);
  return iova.value <= last_of(candidate) ? &candidate : nullptr;
}

bool IotlbTable::overlaps(GuestAddress iova, uint64_t size) const {
  if (size == 0) return false;
  const uint64_t last = last_of(iova, size);
  return std::ranges::any_of(entries_, [&](const IotlbEntry& entry) {
    return entry.iova.value <= last && last_of(entry) >= iova.value;
  });
}

}  // namespace ringway::memory
