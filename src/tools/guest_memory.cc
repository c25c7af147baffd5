#include "ringway/tools/guest_memory.h"

#include <linux/memfd.h>
#include <sys/mman.h>

#include <bit>

namespace ringway::tools {
namespace {

constexpr uint64_t huge_page_bytes = 2 << 20;
// Not 0, so that an address that a device forgot to translate is wrong.
constexpr memory::GuestAddress first_address{uint64_t{1} << 30};

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) & ~(unit - 1); }

}  // namespace

Result<GuestMemory> GuestMemory::make(uint64_t bytes, bool huge_pages) {
  const uint64_t size = round_up(bytes, huge_pages ? huge_page_bytes : guest_page_bytes);
  const unsigned flags = MFD_CLOEXEC | (huge_pages ? MFD_HUGETLB | MFD_HUGE_2MB : MFD_ALLOW_SEALING);
  UniqueFd file(::memfd_create("ringway-guest", flags));
  if (!file) return os_failure("cannot create guest memory");
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) return os_failure("cannot size guest memory");
  auto mapping = Mapping::of_file(file.get(), size, 0);
  if (!mapping && huge_pages)
    return refused("there are not enough free huge pages: see /proc/sys/vm/nr_hugepages");
  return GuestMemory(std::move(file), TRY(std::move(mapping)));
}

Result<GuestBlock> GuestMemory::take(uint64_t bytes, uint64_t alignment) {
  const uint64_t begin = round_up(taken_, alignment);
  if (begin > mapping_.size() || bytes > mapping_.size() - begin) return refused("guest memory is used up");
  taken_ = begin + bytes;
  return GuestBlock{.bytes = mapping_.bytes().subspan(begin, bytes),
                    .address = {first_address.value + begin}};
}

memory::RegionLayout GuestMemory::layout() const {
  return {.guest = first_address,
          .size = mapping_.size(),
          .front_end = {reinterpret_cast<uintptr_t>(mapping_.data())},
          .file_offset = 0};
}

}  // namespace ringway::tools
