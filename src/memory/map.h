// Map: the memory table (SET_MEM_TABLE, ADD_MEM_REG) as an immutable snapshot of mapped regions. Any thread
// may read it. vhost-user: "Memory region description". A changed table is a new Map; memory is unmapped when
// its last holder ends.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/memory/address.h"
#include "ringway/memory/fault_guard.h"
#include "ringway/memory/segments.h"

namespace ringway::memory {

struct RegionLayout {
  GuestAddress guest;
  uint64_t size = 0;  // bytes
  FrontEndAddress front_end;
  uint64_t file_offset = 0;  // bytes; need not be page-aligned
  bool operator==(const RegionLayout&) const = default;
};

// One region, mapped for as long as anybody holds it.
class Region {
 public:
  // Refuses size 0, ranges that wrap, and a file shorter than the region. The fd is kept.
  static Result<std::shared_ptr<const Region>> open(const RegionLayout& layout, UniqueFd fd);
  // Memory of this process at the front-end address, for a front-end that lives in it: nothing is mapped, and
  // it may be unmapped under us (see FaultGuard). Only for who asks for it by name: a peer's address must
  // never come here. Refuses size 0 and ranges that wrap.
  static Result<std::shared_ptr<const Region>> borrow(const RegionLayout& layout);

  [[nodiscard]] const RegionLayout& layout() const { return layout_; }
  [[nodiscard]] std::byte* data() const { return data_; }  // of the first guest byte
  [[nodiscard]] int fd() const { return fd_.get(); }       // -1: borrowed
  [[nodiscard]] size_t page_size() const { return page_size_; }
  [[nodiscard]] bool broken() const { return guard_.broken(); }

 private:
  RegionLayout layout_;
  UniqueFd fd_;
  size_t page_size_ = 0;  // of the backing file: what a mapping of it must be aligned to
  Mapping mapping_;
  FaultGuard guard_;
  std::byte* data_ = nullptr;
};

class Map {
 public:
  static std::shared_ptr<const Map> empty();
  // Refuses regions that overlap in guest or in front-end addresses.
  static Result<std::shared_ptr<const Map>> of(std::vector<std::shared_ptr<const Region>> regions);
  [[nodiscard]] Result<std::shared_ptr<const Map>> with(std::shared_ptr<const Region> region) const;
  // The region is named by guest address, front-end address and size; the file offset is ignored
  // (REM_MEM_REG).
  [[nodiscard]] Result<std::shared_ptr<const Map>> without(const RegionLayout& layout) const;

  // In order of guest address.
  [[nodiscard]] std::span<const std::shared_ptr<const Region>> regions() const { return by_guest_; }
  [[nodiscard]] const Region* find(GuestAddress address) const;
  [[nodiscard]] const Region* find(FrontEndAddress address) const;
  // A fault was absorbed in one of the regions.
  [[nodiscard]] bool broken() const;

  // Appends the pieces that cover all of [address, address + length). The address must lie inside a region
  // even if length is 0. False if any part is outside or `to` is full; `to` may then hold some pieces.
  bool translate(GuestAddress address, uint64_t length, Segments& to) const;
  bool translate(FrontEndAddress address, uint64_t length, Segments& to) const;

 private:
  std::vector<std::shared_ptr<const Region>> by_guest_;
  std::vector<const Region*> by_front_end_;
};

}  // namespace ringway::memory
