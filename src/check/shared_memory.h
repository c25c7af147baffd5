// SharedMemory: a file that is a piece of a guest's memory, mapped here and given to devices. Owned by one
// thread. User addresses are not guest addresses, nor those of our mapping: who mixes them up is found out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ringway/base/mapping.h"
#include "ringway/vhost/request.h"

namespace ringway::check {

class SharedMemory {
 public:
  static constexpr uint64_t page = 4096;

  // Zeroed; `bytes` is a multiple of the page size.
  static Result<SharedMemory> make(memory::GuestAddress guest, memory::FrontEndAddress user, uint64_t bytes);

  [[nodiscard]] const memory::RegionLayout& layout() const { return layout_; }
  void move_user(memory::FrontEndAddress user) { layout_.front_end = user; }
  void move_guest(memory::GuestAddress guest) { layout_.guest = guest; }
  [[nodiscard]] std::span<std::byte> bytes() const { return mapping_.bytes(); }
  [[nodiscard]] std::byte* at(uint64_t offset) const { return mapping_.data() + offset; }
  [[nodiscard]] memory::GuestAddress guest(uint64_t offset) const { return {layout_.guest.value + offset}; }
  [[nodiscard]] uint64_t user(uint64_t offset) const { return layout_.front_end.value + offset; }
  [[nodiscard]] Result<UniqueFd> file() const { return file_.duplicate(); }
  // As SET_MEM_TABLE and ADD_MEM_REG take it.
  [[nodiscard]] Result<vhost::MemoryRegion> region() const;

 private:
  SharedMemory(UniqueFd file, Mapping mapping, const memory::RegionLayout& layout)
      : file_(std::move(file)), mapping_(std::move(mapping)), layout_(layout) {}
  UniqueFd file_;
  Mapping mapping_;
  memory::RegionLayout layout_;
};

}  // namespace ringway::check
