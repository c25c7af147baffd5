// IoctlServer: the dirty log. linux/vhost.h: SET_LOG_BASE, SET_LOG_FD, VHOST_F_LOG_ALL, VHOST_VRING_F_LOG.
#include <algorithm>
#include <utility>

#include "ringway/kernel/as_errno.h"
#include "ringway/kernel/ioctl_server.h"
#include "ringway/kernel/ring_areas.h"
#include "ringway/kernel/user_range.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

constexpr uint64_t guest_bytes_per_byte = uint64_t{8} * VHOST_PAGE_SIZE;

// Probes the part of a log at `base` that has the bits of a range. How long the log must be for it.
Result<uint64_t> probe_part(Caller& caller, uint64_t base, memory::GuestAddress from, uint64_t length) {
  const auto last = from.plus(length - 1);
  if (!last) return no(EFAULT, "what is logged wraps");
  const uint64_t first = from.value / guest_bytes_per_byte;
  const uint64_t end = last->value / guest_bytes_per_byte + 1;
  uint64_t at = 0;
  if (__builtin_add_overflow(base, first, &at) || !is_user_range(at, end - first))
    return no(EFAULT, "the log is no user's");
  TRY(caller.probe_log(at, end - first));
  return end;
}

}  // namespace

bool IoctlServer::logs() const { return (features_ & vhost::bit(VHOST_F_LOG_ALL)) != 0; }

Result<> IoctlServer::set_log_base(Call& call) {
  const auto base = TRY(call.caller.take<uint64_t>(call.argument));
  const uint64_t before = std::exchange(log_base_, base);
  if (!logs() || !any_active()) return {};
  auto lent = lend_log(call.caller);
  if (!lent) log_base_ = before;
  return lent;
}

Result<> IoctlServer::set_log_fd(Call& call) {
  UniqueFd fd = TRY(eventfd_of(call.caller, TRY(call.caller.take<int>(call.argument))));
  TRY(as_errno(ask(vhost::SetLogFd{std::move(fd)}), EINVAL));
  return {};
}

Result<> IoctlServer::lend_log(Caller& caller, const Ring* starting) {
  const uint64_t bytes = TRY(log_bytes(caller, starting));
  TRY(as_errno(ask(vhost::SetLogBase{.size = bytes,
                                     .offset = 0,
                                     .fd = {},
                                     .origin = vhost::MemoryRegion::Origin::own_process,
                                     .front_end = {log_base_}}),
               EFAULT));
  return {};
}

// Behind an IOMMU used rings are logged where they lie, which is in the memory table.
Result<uint64_t> IoctlServer::log_bytes(Caller& caller, const Ring* starting) const {
  uint64_t bytes = 0;
  const auto add = [&](uint64_t from, uint64_t length) -> Result<> {
    bytes = std::max(bytes, TRY(probe_part(caller, log_base_, {from}, length)));
    return {};
  };
  for (const vhost_memory_region& region : table_) TRY(add(region.guest_phys_addr, region.memory_size));
  for (const Ring& ring : rings_) {
    const bool counts = ring.active || &ring == starting;
    if (!counts || has_iotlb() || !ring.addresses || ring.addresses->flags == 0) continue;
    TRY(add(ring.addresses->log, used_bytes(ring.size, is_packed())));
  }
  return bytes;
}

}  // namespace ringway::kernel
