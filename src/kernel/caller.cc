#include "ringway/kernel/caller.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

namespace ringway::kernel {
namespace {

void* as_pointer(uint64_t address) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));  // NOLINT(performance-no-int-to-ptr)
}

// The system call looks at the address for us; partial copies count as none.
using Transfer = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);

Result<> transfer(Transfer how, const iovec& local, uint64_t address) {
  if (local.iov_len == 0) return {};
  const iovec remote{.iov_base = as_pointer(address), .iov_len = local.iov_len};
  const ssize_t moved = how(::getpid(), &local, 1, &remote, 1, 0);
  if (moved == static_cast<ssize_t>(local.iov_len)) return {};
  return os_failure("bad address", moved < 0 && errno != EINVAL ? errno : EFAULT);
}

}  // namespace

pid_t OwnProcess::process() const { return ::getpid(); }

Result<> OwnProcess::copy_in(std::span<std::byte> to, uint64_t from) {
  return transfer(::process_vm_readv, {.iov_base = to.data(), .iov_len = to.size()}, from);
}

Result<> OwnProcess::copy_out(uint64_t to, std::span<const std::byte> from) {
  auto* bytes = const_cast<std::byte*>(from.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  return transfer(::process_vm_writev, {.iov_base = bytes, .iov_len = from.size()}, to);
}

Result<> OwnProcess::probe(uint64_t address, uint64_t size, memory::Access access) {
  const auto first = TRY(take<uint16_t>(address));
  TRY(take<std::byte>(address + size - 1));
  if (memory::permits(access, memory::Access::write)) TRY(give(address, first));
  return {};
}

// As if its pages were written, and what is in them stays: others may be marking there.
Result<> OwnProcess::probe_log(uint64_t address, uint64_t size) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t first = address - address % page;
  const uint64_t length = (address - first + size + page - 1) / page * page;
  if (::madvise(as_pointer(first), length, MADV_POPULATE_WRITE) == 0) return {};
  return os_failure("no log can be there", EFAULT);
}

Result<UniqueFd> OwnProcess::descriptor(int number) {
  UniqueFd copy(::fcntl(number, F_DUPFD_CLOEXEC, 3));
  if (!copy) return os_failure("bad file descriptor");
  return copy;
}

Result<> OwnProcess::share(const memory::RegionLayout& layout, std::vector<vhost::MemoryRegion>& to) {
  to.push_back({.layout = layout, .fd = {}, .origin = vhost::MemoryRegion::Origin::own_process});
  return {};
}

}  // namespace ringway::kernel
