#include "ringway/kernel/iova_map.h"

#include <algorithm>

namespace ringway::kernel {
namespace {

bool meets(const IovaMap::Mapping& mapping, uint64_t iova, uint64_t size) {
  return mapping.iova <= iova + (size - 1) && iova <= mapping.iova + (mapping.size - 1);
}

}  // namespace

bool IovaMap::has_any_in(uint64_t iova, uint64_t size) const {
  return std::ranges::any_of(mappings_, [&](const Mapping& one) { return meets(one, iova, size); });
}

std::vector<IovaMap::Mapping> IovaMap::take(uint64_t iova, uint64_t size) {
  const auto taken =
      std::ranges::partition(mappings_, [&](const Mapping& one) { return !meets(one, iova, size); });
  std::vector<Mapping> result(std::make_move_iterator(taken.begin()), std::make_move_iterator(taken.end()));
  mappings_.erase(taken.begin(), taken.end());
  return result;
}

const memory::RegionLayout* IovaMap::find(uint64_t iova) const {
  for (const Mapping& mapping : mappings_) {
    for (const memory::RegionLayout& region : mapping.regions) {
      if (iova >= region.guest.value && iova - region.guest.value < region.size) return &region;
    }
  }
  return nullptr;
}

Result<uint64_t> IovaMap::front_end(uint64_t iova, uint64_t length) const {
  const memory::RegionLayout* region = find(iova);
  if (region == nullptr) return refused("not mapped for the device", iova);
  const uint64_t first = region->front_end.value + (iova - region->guest.value);
  uint64_t done = region->size - (iova - region->guest.value);
  while (done < length) {
    region = find(iova + done);
    if (region == nullptr) return refused("not mapped for the device", iova + done);
    if (region->front_end.value != first + done) return refused("not in one piece", iova);
    done += region->size;
  }
  return first;
}

}  // namespace ringway::kernel
