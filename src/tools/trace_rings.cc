#include "ringway/tools/trace_rings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ringway/device/port/virtio_net.h"

namespace ringway::tools {
namespace {

bool overlap(uint64_t a, uint64_t b, uint64_t size_a, uint64_t size_b) {
  return a < b ? b - a < size_a : a - b < size_b;
}

}  // namespace

std::vector<Doubt> RingWatch::see(const vhost::DeviceRequest& request, const SeenMessage& message,
                                  const Talk& talk) {
  talk_ = &talk;
  fds_ = &message.fds;
  about_ = {.number = message.number, .name = message.name()};
  doubts_.clear();
  std::visit([this](const auto& one) { on(one); }, request);
  return std::exchange(doubts_, {});
}

std::vector<Doubt> RingWatch::end(const Talk& talk, bool is_cut_off) {
  talk_ = &talk;
  doubts_.clear();
  if (memory_came_) {
    about_ = *memory_came_;
    check_owner();
  }
  for (const auto& [index, ring] : rings_) {
    if (!ring.kicked) continue;
    about_ = *ring.kicked;
    check_parts(index, ring);
    if (!is_cut_off) check_enabling(index, ring);
  }
  return std::exchange(doubts_, {});
}

// vhost-user "VHOST_USER_SET_OWNER": issued when a connection is established. Nobody relies on that before
// rings start.
void RingWatch::check_owner() {
  if (!talk_->features_set() || !memory_came_ || talk_->has_owner() || owner_was_missed_) return;
  owner_was_missed_ = true;
  doubt(false, "SET_OWNER has not come: it begins a session");
}

// ---- memory

void RingWatch::on(const vhost::SetMemTable& request) {
  regions_.clear();
  memory_is_known_ = true;
  for (size_t i = 0; i < request.regions.size(); ++i) add(request.regions[i].layout, i);
}

void RingWatch::on(const vhost::AddMemReg& request) { add(request.region.layout, 0); }

void RingWatch::on(const vhost::RemMemReg& request) {
  std::erase_if(regions_, [&](const memory::RegionLayout& one) {
    return one.guest.value == request.layout.guest.value && one.size == request.layout.size;
  });
}

void RingWatch::add(const memory::RegionLayout& region, size_t index) {
  if (!memory_came_) memory_came_ = about_;
  if (regions_.size() >= max_regions) return;
  const auto met = std::ranges::find_if(regions_, [&](const memory::RegionLayout& other) {
    return overlap(region.guest.value, other.guest.value, region.size, other.size);
  });
  if (met != regions_.end()) {
    doubt(true, fmt::format("region {} at guest address {:#x} overlaps the one at {:#x}", index,
                            region.guest.value, met->guest.value));
  }
  check_file(region, index);
  regions_.push_back(region);
}

void RingWatch::check_file(const memory::RegionLayout& region, size_t index) {
  if (index >= fds_->size()) return;
  const FdInfo& file = (*fds_)[index].what;
  const bool cannot_be_mapped = file.kind == FdKind::eventfd || file.kind == FdKind::pipe ||
                                file.kind == FdKind::socket || file.kind == FdKind::directory;
  if (cannot_be_mapped)
    doubt(true, fmt::format("region {} comes with a {}, which is no memory", index, fd_kind_name(file.kind)));
  const uint64_t end = region.file_offset + region.size;
  if (file.bytes && end >= region.size && end > *file.bytes)
    doubt(false, fmt::format("region {} ends at byte {} of its file, which has {}", index, end, *file.bytes));
}

void RingWatch::forget_memory() {
  regions_.clear();
  memory_is_known_ = false;
}

bool RingWatch::is_shared(uint64_t address, uint64_t size) const {
  if (!memory_is_known_ || regions_.size() >= max_regions) return true;
  return std::ranges::any_of(regions_, [&](const memory::RegionLayout& region) {
    const uint64_t offset = address - region.front_end.value;
    return address >= region.front_end.value && offset < region.size && size <= region.size - offset;
  });
}

// ---- rings

void RingWatch::on(const vhost::SetVringNum& request) {
  if (request.ring < max_rings) rings_[request.ring].size = request.size;
}

void RingWatch::on(const vhost::SetVringAddr& request) {
  if (request.ring >= max_rings) return;
  Ring& ring = rings_[request.ring];
  ring.address = request;
  if (ring.kicked && ring.size > 0) check_start(request.ring, ring);
}

void RingWatch::on(const vhost::SetVringKick& request) {
  check_notifier("kick");
  kick(request.ring);
}

void RingWatch::on(const vhost::VringKick& request) { kick(request.ring); }

void RingWatch::on(const vhost::SetVringEnable& request) {
  if (request.ring < max_rings) rings_[request.ring].switched = true;
}

void RingWatch::on(const vhost::SetVringCall&) { check_notifier("call"); }
void RingWatch::on(const vhost::SetVringErr&) { check_notifier("err"); }
void RingWatch::on(const vhost::GetVringBase& request) { stop(request.ring); }
void RingWatch::on(const vhost::GetVringBaseSkipDrain& request) { stop(request.ring); }

void RingWatch::on(const vhost::SetStatus& request) {
  if (request.status == 0) forget_rings();
}

// Back-ends differ in what of a ring outlives a reset.
void RingWatch::forget_rings() {
  if (!rings_.empty()) rings_are_known_ = false;
  rings_.clear();
}

void RingWatch::check_notifier(const char* what) {
  if (fds_->empty()) return;
  const FdKind kind = fds_->front().what.kind;
  const bool is_none =
      kind == FdKind::file || kind == FdKind::memfd || kind == FdKind::directory || kind == FdKind::socket;
  if (is_none)
    doubt(false,
          fmt::format("the {} file descriptor is a {}, neither eventfd nor pipe", what, fd_kind_name(kind)));
}

void RingWatch::kick(uint32_t index) {
  if (index >= max_rings) return;
  Ring& ring = rings_[index];
  if (!ring.kicked && ring.size > 0 && ring.address) check_start(index, ring);
  if (!ring.kicked) ring.kicked = about_;
  ring.stopped.reset();
  check_owner();
}

void RingWatch::stop(uint32_t index) {
  if (index >= max_rings) return;
  Ring& ring = rings_[index];
  if (ring.stopped)
    doubt(false, fmt::format("ring {} is stopped again: nothing has started it since message {}", index,
                             *ring.stopped));
  if (ring.kicked) {
    check_parts(index, ring);
    check_enabling(index, ring);
  }
  ring.kicked.reset();
  ring.stopped = about_.number;
}

// By the older rule the eventfd starts a ring, and a ring may be described after SET_VRING_KICK: what is
// missing is missed when the ring stops.
void RingWatch::check_parts(uint32_t index, const Ring& ring) {
  const std::string missing = lacks(ring);
  if (!rings_are_known_ || missing.empty()) return;
  doubt(false, fmt::format("ring {} was kicked and could not start: it has {}", index, missing));
}

void RingWatch::check_enabling(uint32_t index, const Ring& ring) {
  if (!rings_are_known_ || !lacks(ring).empty() || !waits_for_enable(index, ring)) return;
  doubt(false, fmt::format("ring {} was started and never enabled: with bit 30 it waits for SET_VRING_ENABLE",
                           index));
}

std::string RingWatch::lacks(const Ring& ring) const {
  std::vector<const char*> parts;
  if (ring.size == 0) parts.push_back("no size");
  if (!ring.address) parts.push_back("no addresses");
  if (memory_is_known_ && !memory_came_ && !ring.memory_is_missed) parts.push_back("no memory");
  return fmt::format("{}", fmt::join(parts, ", "));
}

// QEMU starts all queue pairs of a network device and enables those that the driver uses.
bool RingWatch::waits_for_enable(uint32_t index, const Ring& ring) const {
  const vhost::Agreement& agreed = talk_->agreed();
  if (ring.switched || !talk_->features_set() || !agreed.has_feature(vhost::VHOST_USER_F_PROTOCOL_FEATURES))
    return false;
  const bool may_be_unused = index >= 2 && agreed.has_feature(port::VIRTIO_NET_F_MQ);
  return !may_be_unused || is_switched(index ^ 1);
}

bool RingWatch::is_switched(uint32_t index) const {
  const auto found = rings_.find(index);
  return found != rings_.end() && found->second.switched;
}

// I/O virtual addresses are not the front-end's to place.
void RingWatch::check_start(uint32_t index, Ring& ring) {
  const vhost::Agreement& agreed = talk_->agreed();
  if (!talk_->features_set() || agreed.has_feature(VIRTIO_F_ACCESS_PLATFORM) || !ring.address) return;
  ring.memory_is_missed = memory_is_known_ && regions_.empty();
  if (ring.memory_is_missed)
    return doubt(false, fmt::format("ring {} starts, and no memory has been shared", index));
  const uint64_t n = ring.size;
  const bool packed = agreed.has_feature(VIRTIO_F_RING_PACKED);
  struct Area {
    const char* name;
    uint64_t address;
    uint64_t size;  // at least
  };
  const std::array<Area, 3> areas{{{"descriptor area", ring.address->desc, 16 * n},
                                   {"driver area", ring.address->avail, packed ? 4 : 4 + 2 * n},
                                   {"device area", ring.address->used, packed ? 4 : 4 + 8 * n}}};
  for (const auto& [name, address, size] : areas) {
    if (!is_shared(address, size))
      doubt(true,
            fmt::format("ring {} starts with its {} at {:#x}, which is not in the memory that is shared",
                        index, name, address));
  }
}

}  // namespace ringway::tools
