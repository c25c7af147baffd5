// View: what one ring translates through: a memory snapshot, with or without an IOTLB in front.
// Owned by one thread (it remembers the region it last hit); copies are cheap.
#pragma once

#include <memory>

#include "ringway/base/mapping.h"
#include "ringway/memory/iotlb.h"
#include "ringway/memory/map.h"

namespace ringway::memory {

// What came of a translation.
struct Translation {
  enum Outcome : uint8_t {
    ok,
    outside,  // part of the range is not in any region, or there is no room for its pieces
    miss,     // the IOTLB does not know `address` for `access`: ask the front-end, then try again
    absent,   // not by translate(): the range is in memory that has not come yet, and must be fetched first
  } outcome = ok;
  GuestAddress address;
  Access access = Access::read;
  uint64_t length = 0;  // with absent
};

class View {
 public:
  View() = default;
  explicit View(std::shared_ptr<const Map> map, std::shared_ptr<const IotlbTable> iotlb = nullptr)
      : map_(std::move(map)), iotlb_(std::move(iotlb)) {}

  [[nodiscard]] const Map& map() const { return *map_; }
  [[nodiscard]] bool has_iotlb() const { return iotlb_ != nullptr; }
  [[nodiscard]] const IotlbTable* iotlb() const { return iotlb_.get(); }
  // Postcopy: pages may be absent, and whoever touches one waits for it.
  [[nodiscard]] bool may_lack_pages() const { return may_lack_pages_; }
  void let_pages_lack(bool may) { may_lack_pages_ = may; }

  // Appends the pieces that cover all of [address, address + length) and permit `access`.
  Translation translate(GuestAddress address, uint64_t length, Access access, Segments& to) {
    if (iotlb_ == nullptr && last_ != nullptr) [[likely]] {
      const uint64_t offset = address.value - last_->layout().guest.value;
      const uint64_t size = last_->layout().size;
      if (offset < size && length <= size - offset) [[likely]] {
        const bool fits = to.push(last_->data() + offset, length);
        return {.outcome = fits ? Translation::ok : Translation::outside, .address = address};
      }
    }
    return translate_slowly(address, length, access, to);
  }

 private:
  friend class Window;
  Translation translate_slowly(GuestAddress address, uint64_t length, Access access, Segments& to);
  std::shared_ptr<const Map> map_;
  std::shared_ptr<const IotlbTable> iotlb_;
  const Region* last_ = nullptr;
  bool may_lack_pages_ = false;
};

// A range of driver or front-end addresses as one contiguous piece of our address space: where a ring lies.
// Where the pieces are not adjacent (an IOMMU scatters pages) they are mapped again side by side. Holds what
// it needs mapped.
class Window {
 public:
  Window() = default;
  // `failure` tells a miss from a bad address when the Result is an error.
  static Result<Window> open(View view, GuestAddress address, uint64_t length, Access access,
                             Translation& failure);
  static Result<Window> open(const std::shared_ptr<const Map>& map, FrontEndAddress address, uint64_t length);

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  // A fault was absorbed in it, or anywhere in the memory that it is a part of.
  [[nodiscard]] bool broken() const { return guard_.broken() || (map_ != nullptr && map_->broken()); }

 private:
  static Result<Window> of(const std::shared_ptr<const Map>& map, std::span<const iovec> pieces,
                           uint64_t length);
  static Result<Window> stitch(const Map& map, std::span<const iovec> pieces, uint64_t length);
  std::shared_ptr<const Map> map_;
  Mapping stitched_;
  FaultGuard guard_;
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace ringway::memory
