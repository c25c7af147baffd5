#include "ringway/tools/trace_rings.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <array>
#include <utility>

namespace ringway::tools {
namespace {

bool overlap(uint64_t a, uint64_t b, uint64_t size_a, uint64_t size_b) {
  return a < b ? b - a < size_a : a - b < size_b;
}

}  // namespace

std::vector<Doubt> RingWatch::see(const vhost::DeviceRequest& request, const std::vector<PassedFd>& fds,
                                  const Talk& talk, uint64_t number) {
  talk_ = &talk;
  fds_ = &fds;
  number_ = number;
  doubts_.clear();
  std::visit([this](const auto& one) { on(one); }, request);
  return std::exchange(doubts_, {});
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
void RingWatch::on(const vhost::SetVringCall&) { check_notifier("call"); }
void RingWatch::on(const vhost::SetVringErr&) { check_notifier("err"); }
void RingWatch::on(const vhost::GetVringBase& request) { stop(request.ring); }
void RingWatch::on(const vhost::GetVringBaseSkipDrain& request) { stop(request.ring); }

void RingWatch::on(const vhost::SetStatus& request) {
  if (request.status == 0) rings_.clear();
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
  ring.kicked = true;
  ring.stopped.reset();
}

void RingWatch::stop(uint32_t index) {
  if (index >= max_rings) return;
  Ring& ring = rings_[index];
  if (ring.stopped)
    doubt(false, fmt::format("ring {} is stopped again: nothing has started it since message {}", index,
                             *ring.stopped));
  ring.kicked = false;
  ring.stopped = number_;
}

// I/O virtual addresses are not the front-end's to place.
void RingWatch::check_start(uint32_t index, const Ring& ring) {
  const vhost::Agreement& agreed = talk_->agreed();
  if (!talk_->features_set() || agreed.has_feature(VIRTIO_F_ACCESS_PLATFORM) || !ring.address) return;
  if (memory_is_known_ && regions_.empty())
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
