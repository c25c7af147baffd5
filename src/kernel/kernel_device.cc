#include "ringway/kernel/kernel_device.h"

#include <linux/virtio_config.h>

#include <cassert>
#include <fstream>

#include "ringway/base/log.h"
#include "ringway/kernel/ring_areas.h"

namespace ringway::kernel {
namespace {

using vhost::bit;
using vhost::Done;

constexpr uint64_t log_page = VHOST_PAGE_SIZE;

// Guest addresses below this one have a bit in a log of so many bytes.
uint64_t covered_by(uint64_t log_bytes) {
  return log_bytes > UINT64_MAX / (8 * log_page) ? UINT64_MAX : log_bytes * 8 * log_page;
}

Result<std::shared_ptr<const memory::Region>> open_region(vhost::MemoryRegion& region) {
  if (region.origin == vhost::MemoryRegion::Origin::own_process) return memory::Region::borrow(region.layout);
  return memory::Region::open(region.layout, std::move(region.fd));
}

Result<std::shared_ptr<const memory::Region>> open_log(vhost::SetLogBase& request) {
  if (request.origin == vhost::MemoryRegion::Origin::own_process)
    return memory::Region::borrow({.size = request.size, .front_end = request.front_end});
  if (!request.fd) return refused("a log without a file cannot be shared");
  return memory::Region::open({.size = request.size, .file_offset = request.offset}, std::move(request.fd));
}

}  // namespace

// ---- beginning and end

uint64_t KernelDevice::kernel_mem_slots() {
  uint64_t slots = 0;
  std::ifstream("/sys/module/vhost/parameters/max_mem_regions") >> slots;
  return slots > 0 ? slots : 64;
}

Result<std::unique_ptr<KernelDevice>> KernelDevice::open(std::unique_ptr<Ioctls> file,
                                                         std::unique_ptr<Endpoint> endpoint,
                                                         uint64_t max_mem_slots) {
  std::unique_ptr<KernelDevice> device(new KernelDevice(std::move(file), std::move(endpoint), max_mem_slots));
  TRY(device->begin());
  return device;
}

Result<> KernelDevice::begin() {
  TRY(file_->ioctl(VHOST_SET_OWNER, nullptr));
  TRY(iotlb_.negotiate(bit(VHOST_BACKEND_F_SUSPEND)));
  shape_ = TRY(endpoint_->open(*file_, iotlb_));
  vrings_ = std::vector<Vring>(shape_.rings);
  // A kernel that does not know it may give any errno, so only success says something.
  can_swap_endian_ =
      set(*file_, VHOST_SET_VRING_ENDIAN, vhost_vring_state{.index = 0, .num = VHOST_VRING_LITTLE_ENDIAN})
          .has_value();
  UniqueFd changes = TRY(make_eventfd());
  if (endpoint_->set_config_call(*file_, changes.get())) {
    config_changes_ = TRY(Signal::adopt(std::move(changes)));
  }
  return {};
}

KernelDevice::~KernelDevice() {
  notices_.reset();
  if (auto stopped = stop_all(); !stopped) log::warning("{}", stopped.error().to_string());
}

Result<vhost::DeviceReply> KernelDevice::handle(vhost::DeviceRequest request) {
  return std::visit(
      [this](auto& alternative) -> Result<vhost::DeviceReply> {
        return vhost::DeviceReply(TRY(on(alternative)));
      },
      request);
}

Result<Done> KernelDevice::on(const vhost::SetOwner&) { return Done{}; }

Result<Done> KernelDevice::on(const vhost::ResetOwner&) {
  for (Vring& vring : vrings_) vring.enabled = false;
  TRY(stop_all());
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::ResetDevice&) {
  TRY(stop_all());
  for (uint32_t ring = 0; ring < vrings_.size(); ++ring) {
    TRY(tell_file(VHOST_SET_VRING_CALL, ring, {}));
    TRY(tell_file(VHOST_SET_VRING_ERR, ring, {}));
  }
  // While the kernel has LOG_ALL the memory table must stay below the log.
  TRY(endpoint_->set_features(*file_, 0));
  features_ = 0;
  iotlb_table_ = memory::IotlbTable::empty();
  if (iotlb_lives_) TRY(fill_iotlb());
  vrings_ = std::vector<Vring>(shape_.rings);
  polled_.clear();
  status_ = 0;
  TRY(endpoint_->reset(*file_));
  return Done{};
}

// ---- features

Result<uint64_t> KernelDevice::on(const vhost::GetFeatures&) {
  const uint64_t features = endpoint_->offered(TRY(get<__u64>(*file_, VHOST_GET_FEATURES)));
  return features & ~protocol_features_bit;
}

// The kernel empties its IOTLB when it is given ACCESS_PLATFORM.
Result<Done> KernelDevice::on(const vhost::SetFeatures& request) {
  const uint64_t features = request.features & ~protocol_features_bit;
  TRY(check_log(features, *map_, log_.get()));
  const bool moves = translates(features) != translates();
  if (moves) TRY(stop_all());
  if (const auto taken = endpoint_->set_features(*file_, features); !taken) {
    settle_or_wait();
    return std::unexpected(taken.error());
  }
  features_ = request.features;
  iotlb_lives_ = iotlb_lives_ || translates();
  if (moves && !translates()) iotlb_table_ = memory::IotlbTable::empty();
  if (moves || translates()) TRY(fill_iotlb());
  if (!has(vhost::VHOST_USER_F_PROTOCOL_FEATURES)) {
    for (Vring& vring : vrings_) vring.enabled = true;
    TRY(settle());
  } else if (moves) {
    settle_or_wait();
  }
  return Done{};
}

Result<vhost::Capabilities> KernelDevice::on(const vhost::GetProtocolFeatures&) {
  uint64_t bits = bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | bit(vhost::VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
  if (can_swap_endian_) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN);
  if (shape_.can_log) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD);
  if (shape_.config_bytes > 0) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG);
  if (shape_.has_status) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_STATUS);
  return vhost::Capabilities{bits};
}

Result<Done> KernelDevice::on(const vhost::SetProtocolFeatures&) { return Done{}; }

Result<uint64_t> KernelDevice::on(const vhost::GetQueueNum&) { return vrings_.size(); }

bool KernelDevice::is_packed() const { return has(VIRTIO_F_RING_PACKED); }

bool KernelDevice::translates(uint64_t features) const {
  return (features & bit(VIRTIO_F_ACCESS_PLATFORM)) != 0 && !shape_.rings_by_guest_address;
}

// ---- memory

Result<uint64_t> KernelDevice::on(const vhost::GetMaxMemSlots&) { return max_mem_slots_; }

Result<Done> KernelDevice::on(vhost::SetMemTable& request) {
  if (request.regions.size() > max_mem_slots_)
    return refused("more memory regions than the kernel takes", request.regions.size());
  std::vector<std::shared_ptr<const memory::Region>> regions;
  for (vhost::MemoryRegion& region : request.regions) {
    regions.push_back(TRY(open_region(region)));
  }
  TRY(replace_map(TRY(memory::Map::of(std::move(regions)))));
  return Done{};
}

// Nothing moves: rings go on.
Result<Done> KernelDevice::on(vhost::AddMemReg& request) {
  if (map_->regions().size() >= max_mem_slots_) return refused("all memory slots are taken", max_mem_slots_);
  auto region = TRY(open_region(request.region));
  auto map = TRY(map_->with(region));
  TRY(check_log(features_, *map, log_.get()));
  TRY(endpoint_->set_memory(*file_, *map));
  map_ = std::move(map);
  if (iotlb_lives_ && !translates()) TRY(update_by_guest_address(*region));
  TRY(settle());
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::RemMemReg& request) {
  TRY(replace_map(TRY(map_->without(request.layout))));
  return Done{};
}

Result<> KernelDevice::replace_map(std::shared_ptr<const memory::Map> map) {
  TRY(check_log(features_, *map, log_.get()));
  TRY(stop_all());
  if (iotlb_lives_) TRY(iotlb_.invalidate(0, UINT64_MAX));
  const auto taken = endpoint_->set_memory(*file_, *map);
  if (taken) std::swap(map_, map);
  if (iotlb_lives_) TRY(fill_iotlb());
  settle_or_wait();
  return taken;
}

void KernelDevice::settle_or_wait() {
  if (auto settled = settle(); !settled) log::warning("{}", settled.error().to_string());
}

// ---- log

Result<Done> KernelDevice::on(vhost::SetLogBase& request) {
  if (!shape_.can_log) return not_offered();
  auto log = TRY(open_log(request));
  TRY(check_log(features_, *map_, log.get()));
  TRY(set<__u64>(*file_, VHOST_SET_LOG_BASE, reinterpret_cast<uintptr_t>(log->data())));
  log_ = std::move(log);
  return Done{};
}

Result<Done> KernelDevice::on(const vhost::SetLogFd& request) {
  if (!shape_.can_log) return not_offered();
  TRY(set<int>(*file_, VHOST_SET_LOG_FD, request.fd.get()));
  return Done{};
}

// The kernel adds what it logs to the log's address and looks no further: too short a log, or none, is a
// write anywhere into this process.
Result<> KernelDevice::check_log(uint64_t features, const memory::Map& map, const memory::Region* log) const {
  const uint64_t covered = log == nullptr ? 0 : covered_by(log->layout().size);
  if ((features & bit(VHOST_F_LOG_ALL)) != 0) {
    if (log == nullptr) return refused("LOG_ALL without a log");
    for (const auto& region : map.regions()) {
      if (region->layout().guest.value + region->layout().size > covered)
        return refused("the log does not cover the memory table", region->layout().guest.value);
    }
  }
  for (const Vring& vring : vrings_) {
    if (!vring.addresses || (vring.addresses->flags & (1U << VHOST_VRING_F_LOG)) == 0) continue;
    const auto end = vhost::GuestAddress{vring.addresses->log}.plus(used_bytes(vring.size, is_packed()));
    if (!end || end->value > covered) return refused("the log does not cover the ring", vring.addresses->log);
  }
  return {};
}

// ---- IOTLB

Result<Done> KernelDevice::on(const vhost::UpdateIotlb& request) {
  if (!translates()) return not_offered();
  vhost::IotlbMessage message = request.message;
  if (message.type == vhost::IotlbType::invalidate && message.size == 0) {
    message.iova = {};  // 2^64 bytes, whose size has no number: everything
    message.size = UINT64_MAX;
  }
  const bool replaces = iotlb_table_->overlaps(message.iova, message.size);
  if (message.type == vhost::IotlbType::invalidate || replaces) {
    TRY(iotlb_.invalidate(message.iova.value, message.size));
    iotlb_table_ = iotlb_table_->without(message.iova, message.size);
  }
  if (message.type == vhost::IotlbType::update) {
    const memory::IotlbEntry entry{.iova = message.iova,
                                   .size = message.size,
                                   .front_end = message.front_end,
                                   .access = static_cast<memory::Access>(message.permission)};
    TRY(iotlb_.update(*map_, entry));
    iotlb_table_ = TRY(iotlb_table_->with(entry));
    TRY(settle());
  }
  // After settle(): an answer that does not help is not asked for again at once.
  for (Vring& vring : vrings_) {
    if (vring.asked && *vring.asked - message.iova.value < message.size) vring.asked.reset();
  }
  return Done{};
}

// Entries that do not lie in memory any more are forgotten: the kernel will ask.
Result<> KernelDevice::fill_iotlb() {
  TRY(iotlb_.invalidate(0, UINT64_MAX));
  if (!translates()) {
    for (const auto& region : map_->regions()) TRY(update_by_guest_address(*region));
    return {};
  }
  auto kept = memory::IotlbTable::empty();
  for (const memory::IotlbEntry& entry : iotlb_table_->entries()) {
    if (iotlb_.update(*map_, entry)) kept = TRY(kept->with(entry));
  }
  iotlb_table_ = std::move(kept);
  return {};
}

// Once there, the kernel's IOTLB stays, and all addresses go through it: also those of a driver without an
// IOMMU.
Result<> KernelDevice::update_by_guest_address(const memory::Region& region) {
  return iotlb_.update(region.layout().guest.value, region.layout().size, region.data(),
                       static_cast<uint8_t>(memory::Access::read_write));
}

Result<Done> KernelDevice::on(vhost::SetFrontEnd& request) {
  notices_.reset();
  front_end_ = std::move(request.front_end);
  if (front_end_ == nullptr) return Done{};
  const uint64_t offered = endpoint_->offered(TRY(get<__u64>(*file_, VHOST_GET_FEATURES)));
  const bool can_miss = (offered & bit(VIRTIO_F_ACCESS_PLATFORM)) != 0;
  notices_ = TRY(Notices::start({.misses = can_miss ? file_.get() : nullptr,
                                 .iotlb = &iotlb_,
                                 .config = config_changes_ ? &*config_changes_ : nullptr},
                                front_end_));
  for (Vring& vring : vrings_) vring.asked.reset();
  TRY(settle());
  return Done{};
}

// ---- configuration, status

Result<vhost::ConfigBytes> KernelDevice::on(const vhost::GetConfig& request) {
  return vhost::ConfigBytes{.offset = request.offset,
                            .flags = request.flags,
                            .bytes = TRY(endpoint_->read_config(*file_, request.offset, request.size))};
}

Result<Done> KernelDevice::on(const vhost::SetConfig& request) {
  TRY(endpoint_->write_config(*file_, request.config.offset, request.config.bytes));
  return Done{};
}

// The device's own status follows its rings; what the driver says is remembered for it, and 0 is a reset.
Result<Done> KernelDevice::on(const vhost::SetStatus& request) {
  if (!shape_.has_status) return not_offered();
  if (request.status == 0) return on(vhost::ResetDevice{});
  status_ = request.status;
  return Done{};
}

Result<uint64_t> KernelDevice::on(const vhost::GetStatus&) {
  return TRY(endpoint_->status(*file_)) | status_;
}

// ---- what the kernel's vhost does not have

Result<Done> KernelDevice::on(const vhost::SendRarp&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::NetSetMtu&) { return not_offered(); }
Result<vhost::CryptoSession> KernelDevice::on(const vhost::CreateCryptoSession&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::CloseCryptoSession&) { return not_offered(); }
Result<UniqueFd> KernelDevice::on(const vhost::PostcopyAdvise&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::PostcopyListen&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::PostcopyEnd&) { return not_offered(); }
Result<vhost::InflightArea> KernelDevice::on(const vhost::GetInflightFd&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::SetInflightFd&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::GpuSetSocket&) { return not_offered(); }
Result<Done> KernelDevice::on(const vhost::VringKick&) { return not_offered(); }
Result<vhost::SharedObject> KernelDevice::on(const vhost::GetSharedObject&) { return not_offered(); }
Result<vhost::StateChannel> KernelDevice::on(const vhost::SetDeviceStateFd&) { return not_offered(); }
Result<uint64_t> KernelDevice::on(const vhost::CheckDeviceState&) { return not_offered(); }
Result<vhost::ShmemConfig> KernelDevice::on(const vhost::GetShmemConfig&) { return not_offered(); }
Result<vhost::RingState> KernelDevice::on(const vhost::GetVringBaseSkipDrain&) { return not_offered(); }

}  // namespace ringway::kernel
