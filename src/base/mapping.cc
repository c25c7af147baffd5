#include "ringway/base/mapping.h"

namespace ringway {

Result<Mapping> Mapping::of_file(int fd, size_t size, off_t offset, int protection) {
  void* base = ::mmap(nullptr, size, protection, MAP_SHARED | MAP_NORESERVE, fd, offset);
  if (base == MAP_FAILED) return os_failure("cannot map memory");
  ::madvise(base, size, MADV_DONTDUMP);
  ::madvise(base, size, MADV_DONTFORK);
  return Mapping(base, size);
}

Result<Mapping> Mapping::anonymous(size_t size) {
  void* base =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return os_failure("cannot allocate memory");
  return Mapping(base, size);
}

}  // namespace ringway
