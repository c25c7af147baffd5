// GuestMemory: what a driver without a virtual machine uses as its guest's memory: one memory file, mapped
// here and given to back-ends. Owned by one thread while it is cut up; what was cut off may then go to other
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ringway/base/mapping.h"
#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/memory/address.h"
#include "ringway/memory/map.h"

namespace ringway::tools {

inline constexpr uint64_t guest_page_bytes = 4096;
[[nodiscard]] constexpr uint64_t round_up_to_page(uint64_t bytes) {
  return (bytes + guest_page_bytes - 1) & ~(guest_page_bytes - 1);
}

// A piece of it, as we and as devices see it.
struct GuestBlock {
  std::span<std::byte> bytes;
  memory::GuestAddress address;
};

class GuestMemory {
 public:
  // At least `bytes` > 0, zeroed; with `huge_pages` of 2 MiB, which the administrator must have set aside.
  static Result<GuestMemory> make(uint64_t bytes, bool huge_pages = false);

  // Cuts off the next `bytes`; `alignment` is a power of two, at most the page size. Refused when it is used
  // up.
  Result<GuestBlock> take(uint64_t bytes, uint64_t alignment);
  // What a front-end tells of it in SET_MEM_TABLE. User addresses are where it is mapped here.
  [[nodiscard]] memory::RegionLayout layout() const;
  // A new descriptor of the file.
  [[nodiscard]] Result<UniqueFd> file() const { return file_.duplicate(); }

 private:
  GuestMemory(UniqueFd file, Mapping mapping) : file_(std::move(file)), mapping_(std::move(mapping)) {}
  UniqueFd file_;
  Mapping mapping_;
  uint64_t taken_ = 0;  // bytes
};

}  // namespace ringway::tools
