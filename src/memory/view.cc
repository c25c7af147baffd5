#include "ringway/memory/view.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

namespace ringway::memory {
namespace {

constexpr size_t max_window_pieces = 1024;  // a 4 MiB ring in 4 KiB pages

const Region* region_of(const Map& map, const std::byte* at) {
  const auto regions = map.regions();
  const auto found = std::ranges::find_if(regions, [&](const auto& region) {
    return at >= region->data() && at < region->data() + region->layout().size;
  });
  return found == regions.end() ? nullptr : found->get();
}

// Maps `length` bytes of the file behind `at` once more, at exactly `place`. Both are page-aligned.
Result<> alias(const Map& map, const std::byte* at, size_t length, std::byte* place) {
  const Region* region = region_of(map, at);
  if (region == nullptr) return refused("ring lies outside the memory table");
  if (region->fd() < 0) return refused("ring is scattered over borrowed memory");
  const uint64_t offset = region->layout().file_offset + static_cast<uint64_t>(at - region->data());
  if (offset % region->page_size() != 0 || length % region->page_size() != 0) {
    return refused("ring is scattered over pieces of huge pages");
  }
  const int flags = MAP_SHARED | MAP_FIXED;
  if (::mmap(place, length, PROT_READ | PROT_WRITE, flags, region->fd(), static_cast<off_t>(offset)) ==
      MAP_FAILED) {
    return os_failure("cannot map a scattered ring");
  }
  return {};
}

}  // namespace

Translation View::translate_slowly(GuestAddress address, uint64_t length, Access access, Segments& to) {
  if (iotlb_ == nullptr) {
    const Region* region = map_ == nullptr ? nullptr : map_->find(address);
    if (region == nullptr) return {.outcome = Translation::outside, .address = address};
    last_ = region;
    const bool covered = map_->translate(address, length, to);
    return {.outcome = covered ? Translation::ok : Translation::outside, .address = address};
  }
  do {
    const IotlbEntry* entry = iotlb_->find(address);
    if (entry == nullptr || !permits(entry->access, access)) {
      return {.outcome = Translation::miss, .address = address, .access = access};
    }
    const uint64_t offset = address.value - entry->iova.value;
    const uint64_t here = std::min(length, entry->size - offset);
    if (!map_->translate(FrontEndAddress{entry->front_end.value + offset}, here, to)) {
      return {.outcome = Translation::outside, .address = address};
    }
    length -= here;
    if (length > 0 && __builtin_add_overflow(address.value, here, &address.value)) {
      return {.outcome = Translation::outside, .address = address};
    }
  } while (length > 0);
  return {};
}

Result<Window> Window::open(View view, GuestAddress address, uint64_t length, Access access,
                            Translation& failure) {
  std::vector<iovec> storage(max_window_pieces);
  Segments pieces{std::span(storage)};
  failure = view.translate(address, length, access, pieces);
  if (failure.outcome == Translation::miss)
    return refused("ring address is not in the IOTLB", failure.address.value);
  if (failure.outcome != Translation::ok) return refused("ring lies outside the memory table", address.value);
  return of(view.map_, pieces.all(), length);
}

Result<Window> Window::open(const std::shared_ptr<const Map>& map, FrontEndAddress address, uint64_t length) {
  std::vector<iovec> storage(max_window_pieces);
  Segments pieces{std::span(storage)};
  if (!map->translate(address, length, pieces))
    return refused("ring lies outside the memory table", address.value);
  return of(map, pieces.all(), length);
}

Result<Window> Window::of(const std::shared_ptr<const Map>& map, std::span<const iovec> pieces,
                          uint64_t length) {
  if (pieces.empty()) return refused("ring area is empty");
  Window window;
  if (pieces.size() == 1) {
    window.data_ = static_cast<std::byte*>(pieces[0].iov_base);
  } else {
    window = TRY(stitch(*map, pieces, length));
  }
  window.map_ = map;
  window.size_ = length;
  return window;
}

Result<Window> Window::stitch(const Map& map, std::span<const iovec> pieces, uint64_t length) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t lead = reinterpret_cast<uintptr_t>(pieces[0].iov_base) % page;
  Window window;
  window.stitched_ = TRY(Mapping::anonymous((lead + length + page - 1) / page * page));
  uint64_t done = 0;
  for (const iovec& piece : pieces) {
    auto* at = static_cast<std::byte*>(piece.iov_base);
    const uint64_t before = done == 0 ? lead : 0;
    const bool is_last = done + piece.iov_len == length;
    const bool starts_a_page = (reinterpret_cast<uintptr_t>(at) - before) % page == 0;
    if (!starts_a_page || (!is_last && (before + piece.iov_len) % page != 0)) {
      return refused("ring is scattered over pieces smaller than a page");
    }
    const uint64_t whole = (before + piece.iov_len + page - 1) / page * page;
    std::byte* place = window.stitched_.data() + (done == 0 ? 0 : lead + done);
    TRY(alias(map, at - before, whole, place));
    done += piece.iov_len;
  }
  window.guard_ = FaultGuard(window.stitched_.data(), window.stitched_.size());
  window.data_ = window.stitched_.data() + lead;
  return window;
}

}  // namespace ringway::memory
