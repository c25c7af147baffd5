// IotlbTable: what the front-end has told us of its IOMMU (VIRTIO_F_ACCESS_PLATFORM; vhost-user "IOMMU
// support"), as an immutable snapshot. Any thread may read it. A cache: entries may be evicted, and are then
// asked for again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/memory/address.h"

namespace ringway::memory {

struct IotlbEntry {
  GuestAddress iova;
  uint64_t size = 0;  // bytes; an entry may reach the last address but not wrap
  FrontEndAddress front_end;
  Access access = Access::read_write;
};

class IotlbTable {
 public:
  static constexpr size_t max_entries = 2048;

  static std::shared_ptr<const IotlbTable> empty();
  // A table with `entry`, which replaces whatever it overlaps. Refuses size 0 and wrap-around.
  [[nodiscard]] Result<std::shared_ptr<const IotlbTable>> with(const IotlbEntry& entry) const;
  // A table without anything that overlaps [iova, iova + size).
  [[nodiscard]] std::shared_ptr<const IotlbTable> without(GuestAddress iova, uint64_t size) const;

  [[nodiscard]] const IotlbEntry* find(GuestAddress iova) const;
  // Whether any entry overlaps the range.
  [[nodiscard]] bool overlaps(GuestAddress iova, uint64_t size) const;
  [[nodiscard]] std::span<const IotlbEntry> entries() const { return entries_; }

 private:
  void erase(GuestAddress iova, uint64_t size);
  std::vector<IotlbEntry> entries_;  // sorted by iova, disjoint
};

}  // namespace ringway::memory
