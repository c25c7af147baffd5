#include "ringway/memory/map.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

namespace ringway::memory {
namespace {

Result<size_t> page_size_of(int fd) {
  struct statfs filesystem{};
  if (::fstatfs(fd, &filesystem) != 0) return os_failure("cannot examine a memory file");
  const bool huge = filesystem.f_type == HUGETLBFS_MAGIC;
  return huge ? static_cast<size_t>(filesystem.f_bsize) : static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

Result<> check_file_covers(int fd, uint64_t end) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_failure("cannot examine a memory file");
  if (S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) < end) {
    return refused("memory region ends behind its file", end);
  }
  if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode) && !S_ISBLK(status.st_mode)) {
    return refused("memory region's fd is not a file that can be mapped");
  }
  return {};
}

Result<> check_ranges(const RegionLayout& layout) {
  if (layout.size == 0) return refused("memory region is empty");
  if (!layout.guest.plus(layout.size)) return refused("memory region wraps in guest addresses");
  if (!layout.front_end.plus(layout.size)) return refused("memory region wraps in front-end addresses");
  uint64_t end = 0;
  if (__builtin_add_overflow(layout.file_offset, layout.size, &end) || end > INT64_MAX) {
    return refused("memory region's file range wraps");
  }
  return {};
}

template <auto Start>
bool overlap(const Region& a, const Region& b) {
  const uint64_t a_start = (a.layout().*Start).value;
  const uint64_t b_start = (b.layout().*Start).value;
  return a_start < b_start + b.layout().size && b_start < a_start + a.layout().size;
}

// The last region in `sorted` that starts at or before `address`, if it reaches it.
template <auto Start, class Regions>
const Region* find_in(const Regions& sorted, uint64_t address) {
  auto after = std::upper_bound(
      sorted.begin(), sorted.end(), address,
      [](uint64_t value, const auto& region) { return value < (region->layout().*Start).value; });
  if (after == sorted.begin()) return nullptr;
  const Region& candidate = **std::prev(after);
  return address - (candidate.layout().*Start).value < candidate.layout().size ? &candidate : nullptr;
}

template <auto Start, class Regions>
bool translate_in(const Regions& sorted, uint64_t address, uint64_t length, Segments& to) {
  do {
    const Region* region = find_in<Start>(sorted, address);
    if (region == nullptr) return false;
    const uint64_t offset = address - (region->layout().*Start).value;
    const uint64_t here = std::min(length, region->layout().size - offset);
    if (!to.push(region->data() + offset, here)) return false;
    length -= here;
    address += here;
  } while (length > 0);
  return true;
}

}  // namespace

Result<std::shared_ptr<const Region>> Region::open(const RegionLayout& layout, UniqueFd fd) {
  if (!fd) return refused("memory region has no fd");
  TRY(check_ranges(layout));
  TRY(check_file_covers(fd.get(), layout.file_offset + layout.size));
  auto region = std::make_shared<Region>();
  region->page_size_ = TRY(page_size_of(fd.get()));
  const uint64_t lead = layout.file_offset % region->page_size_;
  uint64_t whole = 0;
  if (__builtin_add_overflow(layout.size + lead, region->page_size_ - 1, &whole)) {
    return refused("memory region is too large", layout.size);
  }
  whole -= whole % region->page_size_;
  region->mapping_ = TRY(Mapping::of_file(fd.get(), whole, static_cast<off_t>(layout.file_offset - lead)));
  region->guard_ = FaultGuard(region->mapping_.data(), region->mapping_.size());
  region->data_ = region->mapping_.data() + lead;
  region->layout_ = layout;
  region->fd_ = std::move(fd);
  return region;
}

Result<std::shared_ptr<const Region>> Region::borrow(const RegionLayout& layout) {
  TRY(check_ranges(layout));
  auto region = std::make_shared<Region>();
  region->page_size_ = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  region->data_ = reinterpret_cast<std::byte*>(layout.front_end.value);  // NOLINT(performance-no-int-to-ptr)
  region->guard_ = FaultGuard::of_borrowed(region->data_, layout.size);
  region->layout_ = layout;
  return region;
}

std::shared_ptr<const Map> Map::empty() { return std::make_shared<const Map>(); }

Result<std::shared_ptr<const Map>> Map::of(std::vector<std::shared_ptr<const Region>> regions) {
  auto map = std::make_shared<Map>();
  map->by_guest_ = std::move(regions);
  std::ranges::sort(map->by_guest_, {}, [](const auto& region) { return region->layout().guest; });
  for (const auto& region : map->by_guest_) map->by_front_end_.push_back(region.get());
  std::ranges::sort(map->by_front_end_, {}, [](const auto* region) { return region->layout().front_end; });
  for (size_t i = 1; i < map->by_guest_.size(); ++i) {
    if (overlap<&RegionLayout::guest>(*map->by_guest_[i - 1], *map->by_guest_[i])) {
      return refused("memory regions overlap in guest addresses", map->by_guest_[i]->layout().guest.value);
    }
    if (overlap<&RegionLayout::front_end>(*map->by_front_end_[i - 1], *map->by_front_end_[i])) {
      return refused("memory regions overlap in front-end addresses",
                     map->by_front_end_[i]->layout().front_end.value);
    }
  }
  return map;
}

Result<std::shared_ptr<const Map>> Map::with(std::shared_ptr<const Region> region) const {
  auto regions = by_guest_;
  regions.push_back(std::move(region));
  return of(std::move(regions));
}

Result<std::shared_ptr<const Map>> Map::without(const RegionLayout& layout) const {
  auto regions = by_guest_;
  const auto removed = std::erase_if(regions, [&](const auto& region) {
    const RegionLayout& there = region->layout();
    return there.guest == layout.guest && there.front_end == layout.front_end && there.size == layout.size;
  });
  if (removed == 0) return refused("no such memory region", layout.guest.value);
  return of(std::move(regions));
}

const Region* Map::find(GuestAddress address) const {
  return find_in<&RegionLayout::guest>(by_guest_, address.value);
}

const Region* Map::find(FrontEndAddress address) const {
  return find_in<&RegionLayout::front_end>(by_front_end_, address.value);
}

bool Map::broken() const {
  return std::ranges::any_of(by_guest_, [](const auto& region) { return region->broken(); });
}

bool Map::translate(GuestAddress address, uint64_t length, Segments& to) const {
  return translate_in<&RegionLayout::guest>(by_guest_, address.value, length, to);
}

bool Map::translate(FrontEndAddress address, uint64_t length, Segments& to) const {
  return translate_in<&RegionLayout::front_end>(by_front_end_, address.value, length, to);
}

}  // namespace ringway::memory
