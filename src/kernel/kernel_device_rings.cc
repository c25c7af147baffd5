// KernelDevice: its rings, from what the front-end says of them to what the kernel is told.
#include <cassert>

#include "ringway/base/log.h"
#include "ringway/kernel/kernel_device.h"
#include "ringway/kernel/ring_areas.h"

namespace ringway::kernel {
namespace {

using vhost::Done;

uint64_t address_of(const memory::Window& window) { return reinterpret_cast<uintptr_t>(window.data()); }

template <class F>
Result<> for_each(const RingSet& rings, F f) {
  for (uint32_t ring = 0; ring < rings.size(); ++ring) {
    if (rings[ring]) TRY(f(ring));
  }
  return {};
}

}  // namespace

KernelDevice::Vring& KernelDevice::vring(vhost::RingIndex index) {
  assert(index < vrings_.size());
  return vrings_[index];
}

Result<Done> KernelDevice::on(const vhost::SetVringNum& request) {
  vring(request.ring).size = request.size;
  TRY(settle());
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::SetVringAddr& request) {
  Vring& vring = this->vring(request.ring);
  auto before = std::exchange(vring.addresses, request);
  auto checked = check_log(features_, *map_, log_.get());
  if (checked && running_[request.ring]) checked = tell_addresses(request.ring);
  if (!checked) {
    vring.addresses = before;
    return std::unexpected(checked.error());
  }
  TRY(settle());
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::SetVringBase& request) {
  vring(request.ring).base = request.base;
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::SetVringEndian& request) {
  if (!can_swap_endian_) return not_offered();
  vring(request.ring).big_endian = request.big;
  return Done{};
}

Result<vhost::RingState> KernelDevice::on(const vhost::GetVringBase& request) {
  Vring& vring = this->vring(request.ring);
  vring.kick.reset();
  polled_.remove(request.ring);
  const auto settled = settle();
  if (running_[request.ring]) return std::unexpected(settled.error());
  if (!settled) log::warning("{}", settled.error().to_string());
  return vhost::RingState{.ring = request.ring, .value = vring.base};
}

Result<Done> KernelDevice::on(vhost::SetVringKick& request) {
  if (!request.fd) {
    request.fd = TRY(polled_.add(request.ring));
  } else {
    if (TRY(notify_kind(request.fd.get())) != NotifyKind::eventfd)
      return refused("the kernel takes kicks from eventfds only");
    polled_.remove(request.ring);
  }
  Vring& vring = this->vring(request.ring);
  vring.kick = std::move(request.fd);
  if (running_[request.ring]) {
    TRY(tell_file(VHOST_SET_VRING_KICK, request.ring, vring.kick));
    return Done{};
  }
  if (auto settled = settle(); !settled) {
    vring.kick.reset();
    polled_.remove(request.ring);
    return std::unexpected(settled.error());
  }
  return Done{};
}

Result<Done> KernelDevice::on(vhost::SetVringCall& request) {
  TRY(tell_file(VHOST_SET_VRING_CALL, request.ring, request.fd));
  vring(request.ring).call = std::move(request.fd);
  return Done{};
}

Result<Done> KernelDevice::on(vhost::SetVringErr& request) {
  TRY(tell_file(VHOST_SET_VRING_ERR, request.ring, request.fd));
  vring(request.ring).err = std::move(request.fd);
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::SetVringEnable& request) {
  Vring& vring = this->vring(request.ring);
  const bool before = std::exchange(vring.enabled, request.enable != 0);
  if (auto settled = settle(); !settled) {
    vring.enabled = before;
    return std::unexpected(settled.error());
  }
  return Done{};
}

RingSet KernelDevice::enabled() const {
  RingSet rings;
  for (uint32_t ring = 0; ring < vrings_.size(); ++ring) rings[ring] = vrings_[ring].enabled;
  return rings;
}

RingSet KernelDevice::ready() {
  RingSet rings;
  for (uint32_t ring = 0; ring < vrings_.size(); ++ring) {
    Vring& vring = vrings_[ring];
    const bool may_run = vring.is_complete() && (vring.enabled || shape_.discarding[ring]);
    rings[ring] = may_run && (running_[ring] || !translates() || is_mapped(vring));
  }
  return rings;
}

// The kernel takes a used area that its IOTLB does not have for a broken ring. All else it asks for by
// itself.
bool KernelDevice::is_mapped(Vring& vring) {
  assert(vring.addresses);
  uint64_t at = vring.addresses->used;
  uint64_t left = used_bytes(vring.size, is_packed());
  while (true) {
    const memory::IotlbEntry* entry = iotlb_table_->find({at});
    if (entry == nullptr || !memory::permits(entry->access, memory::Access::read_write)) break;
    const uint64_t here = entry->size - (at - entry->iova.value);
    if (here >= left) return true;
    at += here;
    left -= here;
  }
  if (notices_ != nullptr && vring.asked != at) {
    vring.asked = at;
    notices_->tell({.iova = {at},
                    .permission = static_cast<uint8_t>(memory::Access::read_write),
                    .type = vhost::IotlbType::miss});
  }
  return false;
}

Result<> KernelDevice::settle() {
  const RingSet wanted = endpoint_->startable(ready());
  if (wanted != running_) {
    const RingSet staying = shape_.starts_together ? RingSet{} : wanted & running_;
    TRY(stop(running_ & ~staying));
    if ((wanted & ~staying).any()) TRY(start(wanted & ~staying));
  }
  return engage(running_ & shape_.discarding & (enabled() ^ engaged_));
}

Result<> KernelDevice::engage(const RingSet& rings) {
  const RingSet on = rings & enabled();
  const RingSet off = rings & ~on;
  if (on.any()) TRY(endpoint_->start(*file_, on));
  if (off.any()) TRY(endpoint_->discard(*file_, off));
  engaged_ = (engaged_ & ~rings) | on;
  return {};
}

Result<> KernelDevice::start(RingSet rings) {
  TRY(endpoint_->prepare(*file_, features_ & ~protocol_features_bit));
  auto started = for_each(rings, [this](uint32_t ring) { return describe(ring); });
  if (started) started = engage(rings);
  if (!started) {
    abandon(rings);
    return started;
  }
  running_ |= rings;
  // What was kicked before the kernel listened is lost on it.
  return for_each(rings, [this](uint32_t ring) {
    kick(ring);
    return Result<>{};
  });
}

Result<> KernelDevice::stop(RingSet rings) {
  if (rings.none()) return {};
  TRY(endpoint_->stop(*file_, rings));
  running_ &= ~rings;
  engaged_ &= ~rings;
  return for_each(rings, [this](uint32_t ring) -> Result<> {
    TRY(tell_file(VHOST_SET_VRING_KICK, ring, {}));
    vrings_[ring].base = TRY(get(*file_, VHOST_GET_VRING_BASE, vhost_vring_state{.index = ring})).num;
    vrings_[ring].areas = {};
    vrings_[ring].asked.reset();
    return {};
  });
}

// Some of a start that has failed may have happened. Nothing was taken from the rings.
void KernelDevice::abandon(RingSet rings) {
  auto stopped = endpoint_->stop(*file_, rings);
  for (uint32_t ring = 0; ring < vrings_.size(); ++ring) {
    if (!rings[ring]) continue;
    vrings_[ring].areas = {};
    const auto unbound = tell_file(VHOST_SET_VRING_KICK, ring, {});
    if (!unbound) stopped = unbound;
  }
  if (!stopped) log::debug("{}", stopped.error().to_string());
}

Result<> KernelDevice::stop_all() { return stop(running_); }

// In the order that the kernel wants: size and base before it looks at the areas.
Result<> KernelDevice::describe(vhost::RingIndex index) {
  const Vring& vring = vrings_[index];
  TRY(set(*file_, VHOST_SET_VRING_NUM, vhost_vring_state{.index = index, .num = vring.size}));
  TRY(set(*file_, VHOST_SET_VRING_BASE, vhost_vring_state{.index = index, .num = vring.base}));
  if (can_swap_endian_)
    TRY(set(*file_, VHOST_SET_VRING_ENDIAN, vhost_vring_state{.index = index, .num = vring.big_endian}));
  TRY(check_log(features_, *map_, log_.get()));
  TRY(tell_addresses(index));
  TRY(tell_file(VHOST_SET_VRING_CALL, index, vring.call));
  TRY(tell_file(VHOST_SET_VRING_ERR, index, vring.err));
  return tell_file(VHOST_SET_VRING_KICK, index, vring.kick);
}

Result<> KernelDevice::tell_addresses(vhost::RingIndex index) {
  Vring& vring = vrings_[index];
  assert(vring.addresses);
  vhost_vring_addr addresses{.index = index,
                             .flags = vring.addresses->flags,
                             .desc_user_addr = vring.addresses->desc,
                             .used_user_addr = vring.addresses->used,
                             .avail_user_addr = vring.addresses->avail,
                             .log_guest_addr = vring.addresses->log};
  Areas areas = TRY(place(vring, addresses));
  TRY(set(*file_, VHOST_SET_VRING_ADDR, addresses));
  vring.areas = std::move(areas);
  return {};
}

// From what the front-end said to what the kernel understands: pointers, or guest addresses where they are
// looked up (vDPA, an IOTLB that has stayed); behind an IOMMU both say the same.
Result<KernelDevice::Areas> KernelDevice::place(const Vring& vring, vhost_vring_addr& addresses) const {
  Areas areas;
  if (translates()) return areas;
  const uint64_t desc = desc_bytes(vring.size);
  const uint64_t avail = avail_bytes(vring.size, is_packed());
  const uint64_t used = used_bytes(vring.size, is_packed());
  if (shape_.rings_by_guest_address || iotlb_lives_) {
    addresses.desc_user_addr = TRY(guest_address(addresses.desc_user_addr, desc));
    addresses.avail_user_addr = TRY(guest_address(addresses.avail_user_addr, avail));
    addresses.used_user_addr = TRY(guest_address(addresses.used_user_addr, used));
    return areas;
  }
  areas.desc = TRY(memory::Window::open(map_, vhost::FrontEndAddress{addresses.desc_user_addr}, desc));
  areas.avail = TRY(memory::Window::open(map_, vhost::FrontEndAddress{addresses.avail_user_addr}, avail));
  areas.used = TRY(memory::Window::open(map_, vhost::FrontEndAddress{addresses.used_user_addr}, used));
  addresses.desc_user_addr = address_of(areas.desc);
  addresses.avail_user_addr = address_of(areas.avail);
  addresses.used_user_addr = address_of(areas.used);
  return areas;
}

Result<uint64_t> KernelDevice::guest_address(uint64_t front_end, uint64_t length) const {
  const memory::Region* region = map_->find(vhost::FrontEndAddress{front_end});
  if (region == nullptr) return refused("ring lies outside the memory table", front_end);
  const memory::RegionLayout& layout = region->layout();
  const uint64_t offset = front_end - layout.front_end.value;
  if (length > layout.size - offset) return refused("ring lies in more than one region", front_end);
  return layout.guest.value + offset;
}

Result<> KernelDevice::tell_file(unsigned long request, vhost::RingIndex index, const UniqueFd& fd) {
  return set(*file_, request, vhost_vring_file{.index = index, .fd = fd ? fd.get() : VHOST_FILE_UNBIND});
}

void KernelDevice::kick(vhost::RingIndex index) const {
  auto copy = vrings_[index].kick.duplicate();
  if (!copy) return;
  if (const auto notifier = Notifier::adopt(*std::move(copy))) notifier->signal();
}

}  // namespace ringway::kernel
