#include "ringway/memory/user_fault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "ringway/base/log.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::memory {
namespace {

UniqueFd make_user_fault_fd(unsigned more_flags) {
  return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | more_flags)));
}

// All that was mapped for a region: whole pages of its file.
std::span<std::byte> mapped(const Region& region) {
  const uint64_t page = region.page_size();
  const uint64_t lead = region.layout().file_offset % page;
  return {region.data() - lead, (lead + region.layout().size + page - 1) / page * page};
}

uffdio_range range_of(const Region& region) {
  const std::span<std::byte> all = mapped(region);
  return {.start = reinterpret_cast<uintptr_t>(all.data()), .len = all.size()};
}

size_t page_size() {
  static const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

// The whole pages that a piece touches.
std::span<std::byte> pages_of(const iovec& piece) {
  const auto begin = reinterpret_cast<uintptr_t>(piece.iov_base);
  const uintptr_t first = begin / page_size() * page_size();
  const uintptr_t end = (begin + piece.iov_len + page_size() - 1) / page_size() * page_size();
  return {static_cast<std::byte*>(piece.iov_base) - (begin - first), end - first};
}

}  // namespace

Result<UserFault> UserFault::open() {
  UniqueFd fd = make_user_fault_fd(0);
  if (!fd && errno == EPERM) fd = make_user_fault_fd(UFFD_USER_MODE_ONLY);
  if (!fd) return os_failure("cannot make a userfaultfd");
  uffdio_api api{
      .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS, .ioctls = 0};
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0)
    return os_failure("cannot use a userfaultfd for shared memory");
  return UserFault(std::move(fd));
}

Result<> UserFault::watch(std::shared_ptr<const Region> region) {
  if (region->fd() < 0) return refused("borrowed memory cannot come later");
  ::madvise(mapped(*region).data(), mapped(*region).size(), MADV_NOHUGEPAGE);
  uffdio_register request{.range = range_of(*region), .mode = UFFDIO_REGISTER_MODE_MISSING, .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0)
    return os_failure("cannot register memory with a userfaultfd");
  regions_.push_back(std::move(region));
  return {};
}

void UserFault::end() {
  for (const auto& region : regions_) {
    uffdio_range range = range_of(*region);
    if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range) != 0) log::warning("cannot unregister memory");
  }
  regions_.clear();
}

bool pages_are_here(std::span<const iovec> pieces) {
  std::array<unsigned char, 256> present;
  for (const iovec& piece : pieces) {
    std::span<std::byte> pages = pages_of(piece);
    while (!pages.empty()) {
      const auto some = pages.first(std::min(pages.size(), present.size() * page_size()));
      const size_t count = some.size() / page_size();
      if (::mincore(some.data(), some.size(), present.data()) != 0) return false;
      if (!std::all_of(present.begin(), present.begin() + count, [](auto page) { return (page & 1) != 0; }))
        return false;
      pages = pages.subspan(some.size());
    }
  }
  return true;
}

void fetch_pages(std::span<const iovec> pieces) {
  for (const iovec& piece : pieces) {
    const std::span<std::byte> pages = pages_of(piece);
    for (size_t at = 0; at < pages.size(); at += page_size()) {
      static_cast<void>(load<uint8_t>(pages.data() + at));
    }
  }
}

}  // namespace ringway::memory
