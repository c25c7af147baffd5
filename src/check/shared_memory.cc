#include "ringway/check/shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

namespace ringway::check {

Result<SharedMemory> SharedMemory::make(memory::GuestAddress guest, memory::FrontEndAddress user,
                                        uint64_t bytes) {
  UniqueFd file(::memfd_create("ringway-check", MFD_CLOEXEC));
  if (!file) return os_failure("cannot create memory to share");
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0)
    return os_failure("cannot size memory to share");
  Mapping mapping = TRY(Mapping::of_file(file.get(), bytes, 0));
  return SharedMemory(std::move(file), std::move(mapping),
                      {.guest = guest, .size = bytes, .front_end = user, .file_offset = 0});
}

Result<vhost::MemoryRegion> SharedMemory::region() const {
  return vhost::MemoryRegion{.layout = layout_, .fd = TRY(file_.duplicate())};
}

}  // namespace ringway::check
