// IoctlServer, of vhost-vdpa. linux/vhost.h VHOST_VDPA_*; VIRTIO "Device Status Field".
#include <linux/virtio_config.h>

#include <algorithm>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/base/notifier.h"
#include "ringway/kernel/as_errno.h"
#include "ringway/kernel/ioctl_server.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

using vhost::bit;

// IOTLB_BATCH: its two messages change nothing, since every message has its effect at once.
constexpr uint64_t backend_features = bit(VHOST_BACKEND_F_IOTLB_MSG_V2) | bit(VHOST_BACKEND_F_IOTLB_BATCH) |
                                      bit(VHOST_BACKEND_F_SUSPEND) | bit(VHOST_BACKEND_F_RESUME) |
                                      bit(VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK) |
                                      bit(VHOST_BACKEND_F_IOTLB_PERSIST);
constexpr uint64_t last_iova = INT64_MAX;
constexpr uint32_t groups = 1;                // of rings, and address spaces
constexpr uint32_t max_config_at_once = 256;  // bytes of a request: vhost-user "Virtio device config space"
constexpr auto read_write = static_cast<uint8_t>(memory::Access::read_write);

}  // namespace

// ---- what the device is

Result<> IoctlServer::vdpa_get_device_id(Call& call) {
  return call.caller.give(call.argument, served_.identity.device_id);
}
Result<> IoctlServer::vdpa_get_vring_num(Call& call) {
  return call.caller.give(call.argument, served_.identity.ring_size);
}
Result<> IoctlServer::vdpa_get_config_size(Call& call) {
  return call.caller.give(call.argument, served_.identity.config_bytes);
}
Result<> IoctlServer::vdpa_get_vqs_count(Call& call) {
  return call.caller.give(call.argument, static_cast<uint32_t>(rings_.size()));
}
Result<> IoctlServer::vdpa_get_iova_range(Call& call) {
  return call.caller.give(call.argument, vhost_vdpa_iova_range{.first = 0, .last = last_iova});
}
Result<> IoctlServer::vdpa_get_one(Call& call) { return call.caller.give(call.argument, groups); }

Result<> IoctlServer::vdpa_get_vring_group(Call& call) {
  return call.caller.give(call.argument, vhost_vring_state{.index = call.ring, .num = 0});
}

Result<> IoctlServer::vdpa_get_vring_desc_group(Call&) {
  return no(EOPNOTSUPP, "descriptors have no group of their own");
}

Result<> IoctlServer::vdpa_get_vring_size(Call& call) {
  return call.caller.give(call.argument,
                          vhost_vring_state{.index = call.ring, .num = served_.identity.ring_size});
}

Result<> IoctlServer::vdpa_set_group_asid(Call& call) {
  const auto state = TRY(call.caller.take<vhost_vring_state>(call.argument));
  if (state.index >= groups || state.num >= groups) return no(EINVAL, "no such group or address space");
  return {};
}

Result<> IoctlServer::vdpa_no_log(Call&) { return no(ENOTTY, "vhost-vdpa has no log"); }

// Taken and not used, as the kernel does: memory comes by write().
Result<> IoctlServer::vdpa_set_mem_table(Call& call) {
  TRY(take_table(call));
  return {};
}

// ---- features

Result<> IoctlServer::vdpa_set_features(Call& call) {
  if ((status_ & VIRTIO_CONFIG_S_FEATURES_OK) != 0) return no(EBUSY, "the features are agreed on");
  const auto wanted = TRY(call.caller.take<uint64_t>(call.argument));
  if ((wanted & ~offered_) != 0) return no(EINVAL, "features that were not offered");
  // The device gets memory where it can be reached as it is.
  TRY(as_errno(ask(vhost::SetFeatures{wanted & ~bit(VIRTIO_F_ACCESS_PLATFORM)}), EINVAL));
  features_ = wanted;
  return {};
}

Result<> IoctlServer::vdpa_get_backend_features(Call& call) {
  return call.caller.give(call.argument, backend_features);
}

Result<> IoctlServer::vdpa_set_backend_features(Call& call) {
  const auto wanted = TRY(call.caller.take<uint64_t>(call.argument));
  if ((wanted & ~backend_features) != 0) return no(EOPNOTSUPP, "features that were not offered");
  return {};
}

// ---- status

Result<> IoctlServer::vdpa_get_status(Call& call) { return call.caller.give(call.argument, status_); }

Result<> IoctlServer::vdpa_set_status(Call& call) {
  const auto status = TRY(call.caller.take<uint8_t>(call.argument));
  if (status == 0) return vdpa_reset();
  if ((status_ & ~status) != 0) return no(EINVAL, "a bit of the status goes by a reset only");
  const uint8_t before = std::exchange(status_, status);
  const auto settled = vdpa_settle(call.caller);
  if (!settled) status_ = before;
  return settled;
}

// What is mapped stays so: VHOST_BACKEND_F_IOTLB_PERSIST.
Result<> IoctlServer::vdpa_reset() {
  TRY(stop_all());
  TRY(as_errno(ask(vhost::ResetDevice{}), EIO));
  TRY(as_errno(ask(vhost::SetFeatures{0}), EIO));
  for (uint32_t index = 0; index < rings_.size(); ++index) {
    TRY(ask(vhost::SetVringCall{index, {}}));
    TRY(ask(vhost::SetVringErr{index, {}}));
    rings_[index] = {};
  }
  features_ = 0;
  status_ = 0;
  suspended_ = false;
  config_call_->set({});
  return {};
}

Result<> IoctlServer::vdpa_suspend(Call& call) {
  if ((status_ & VIRTIO_CONFIG_S_DRIVER_OK) == 0) return {};
  suspended_ = true;
  return vdpa_settle(call.caller);
}

Result<> IoctlServer::vdpa_resume(Call& call) {
  if ((status_ & VIRTIO_CONFIG_S_DRIVER_OK) == 0) return {};
  suspended_ = false;
  return vdpa_settle(call.caller);
}

Result<> IoctlServer::vdpa_set_vring_enable(Call& call) {
  const auto state = TRY(call.caller.take<vhost_vring_state>(call.argument));
  const bool before = std::exchange(rings_[call.ring].enabled, state.num != 0);
  const auto settled = vdpa_settle(call.caller);
  if (!settled) rings_[call.ring].enabled = before;
  return settled;
}

Result<> IoctlServer::vdpa_settle(Caller& caller) {
  const bool may_run = (status_ & VIRTIO_CONFIG_S_DRIVER_OK) != 0 && !suspended_;
  for (uint32_t index = 0; index < rings_.size(); ++index) {
    const Ring& ring = rings_[index];
    const bool shall_run = may_run && ring.enabled;
    if (ring.active == shall_run) continue;
    TRY(shall_run ? start(caller, index) : stop(index));
  }
  return {};
}

// ---- configuration

Result<IoctlServer::ConfigPart> IoctlServer::vdpa_config_part(Call& call) const {
  struct Head {
    uint32_t offset = 0;
    uint32_t size = 0;
  };
  static_assert(sizeof(Head) == sizeof(vhost_vdpa_config));
  const auto head = TRY(call.caller.take<Head>(call.argument));
  const uint32_t bytes = served_.identity.config_bytes;
  if (head.size == 0 || head.offset > bytes || head.size > bytes - head.offset)
    return no(EINVAL, "outside the configuration space");
  return ConfigPart{.offset = head.offset, .size = head.size, .at = call.argument + sizeof(Head)};
}

Result<> IoctlServer::vdpa_get_config(Call& call) {
  const ConfigPart part = TRY(vdpa_config_part(call));
  for (uint32_t done = 0; done < part.size; done += max_config_at_once) {
    const uint32_t here = std::min(part.size - done, max_config_at_once);
    const auto got = TRY(as_errno(ask(vhost::GetConfig{.offset = part.offset + done, .size = here}), EINVAL));
    TRY(call.caller.copy_out(part.at + done, got.bytes));
  }
  return {};
}

Result<> IoctlServer::vdpa_set_config(Call& call) {
  const ConfigPart part = TRY(vdpa_config_part(call));
  std::vector<std::byte> bytes(part.size);
  TRY(call.caller.copy_in(bytes, part.at));
  TRY(as_errno(ask(vhost::SetConfig{{.offset = part.offset, .flags = 0, .bytes = std::move(bytes)}}),
               EINVAL));
  return {};
}

Result<> IoctlServer::vdpa_set_config_call(Call& call) {
  UniqueFd fd = TRY(eventfd_of(call.caller, TRY(call.caller.take<int>(call.argument))));
  config_call_->set(fd ? TRY(Notifier::adopt(std::move(fd))) : Notifier());
  return {};
}

// ---- memory

Result<> IoctlServer::vdpa_write(Caller& caller, const vhost::IotlbMessage& message) {
  if (owner_ != caller.process()) return no(EPERM, "the caller is not the owner");
  switch (static_cast<unsigned>(message.type)) {
    case VHOST_IOTLB_UPDATE:
      return vdpa_map(caller, message);
    case VHOST_IOTLB_INVALIDATE:
      return vdpa_unmap(message);
    case VHOST_IOTLB_BATCH_BEGIN:
    case VHOST_IOTLB_BATCH_END:
      return {};
    default:
      return refused("no device takes this message");
  }
}

// Memory has the guest address by which the driver calls it. Its front-end address is that too where the
// device gets a file of it, so that a page may be mapped twice; a pointer of ours stays one.
Result<> IoctlServer::vdpa_map(Caller& caller, const vhost::IotlbMessage& message) {
  const uint64_t iova = message.iova.value;
  if (message.size > last_iova || iova > last_iova - (message.size - 1))
    return refused("outside what the device can address", iova);
  if (mapped_.has_any_in(iova, message.size)) return refused("mapped already", iova);
  if (message.permission != read_write) {
    limited_.warning("memory that the device may not read and write cannot be mapped");
    return refused("not for reading and writing", message.permission);
  }
  std::vector<vhost::MemoryRegion> regions;
  const memory::RegionLayout layout{
      .guest = message.iova, .size = message.size, .front_end = message.front_end, .file_offset = 0};
  TRY(caller.share(layout, regions));
  IovaMap::Mapping mapping{.iova = iova, .size = message.size, .regions = {}};
  for (vhost::MemoryRegion& region : regions) {
    if (region.origin == vhost::MemoryRegion::Origin::file)
      region.layout.front_end = {region.layout.guest.value};
    const memory::RegionLayout added = region.layout;
    if (auto taken = ask(vhost::AddMemReg{std::move(region)}); !taken) {
      TRY(vdpa_forget({std::move(mapping)}));
      return std::unexpected(taken.error());
    }
    mapping.regions.push_back(added);
  }
  mapped_.add(std::move(mapping));
  has_memory_ = true;
  return {};
}

Result<> IoctlServer::vdpa_unmap(const vhost::IotlbMessage& message) {
  if (message.size == 0) return {};
  const uint64_t size = std::min(message.size, UINT64_MAX - message.iova.value);
  TRY(vdpa_forget(mapped_.take(message.iova.value, size)));
  has_memory_ = !mapped_.empty();
  return {};
}

Result<> IoctlServer::vdpa_forget(const std::vector<IovaMap::Mapping>& gone) {
  for (const IovaMap::Mapping& mapping : gone) {
    for (const memory::RegionLayout& layout : mapping.regions) TRY(ask(vhost::RemMemReg{layout}));
  }
  return {};
}

}  // namespace ringway::kernel
