#include "ringway/vhost/transcript.h"

#include <algorithm>
#include <utility>

namespace ringway::vhost {
namespace {

constexpr size_t table_regions = 8;  // of one SET_MEM_TABLE

bool names(const memory::RegionLayout& layout, const MemoryRegion& region) {
  const memory::RegionLayout& there = region.layout;
  return there.guest == layout.guest && there.front_end == layout.front_end && there.size == layout.size;
}

Result<MemoryRegion> again(const MemoryRegion& region) {
  return MemoryRegion{.layout = region.layout, .fd = TRY(region.fd.duplicate())};
}

Result<UniqueFd> again(const UniqueFd& fd) {
  if (!fd) return UniqueFd();
  return fd.duplicate();
}

}  // namespace

Result<DeviceReply> Transcript::handle(DeviceRequest request) {
  return std::visit([this](auto& one) { return forward(std::move(one)); }, request);
}

template <class T>
Result<DeviceReply> Transcript::forward(T request) {
  Change remember = change(request);
  DeviceReply reply = TRY(next_.handle(std::move(request)));
  remember(reply);
  return reply;
}

// ---- what is remembered of each request, once it is done

Transcript::Change Transcript::change(const SetOwner&) {
  return [this](const DeviceReply&) { owned_ = true; };
}

Transcript::Change Transcript::change(const ResetOwner&) {
  return [this](const DeviceReply&) {
    for (auto& [index, ring] : rings_) ring.enable = 0;
  };
}

Transcript::Change Transcript::change(const SetFeatures& request) {
  return [this, features = request.features](const DeviceReply&) { features_ = features; };
}

Transcript::Change Transcript::change(const SetProtocolFeatures& request) {
  return [this, capabilities = request.capabilities](const DeviceReply&) { capabilities_ = capabilities; };
}

Transcript::Change Transcript::change(const SetMemTable& request) {
  std::vector<MemoryRegion> copies;
  for (const MemoryRegion& region : request.regions)
    copies.push_back({.layout = region.layout, .fd = copy_of(region.fd)});
  return [this, copies = std::move(copies)](const DeviceReply&) mutable { regions_ = std::move(copies); };
}

Transcript::Change Transcript::change(const AddMemReg& request) {
  MemoryRegion copy{.layout = request.region.layout, .fd = copy_of(request.region.fd)};
  return [this, copy = std::move(copy)](const DeviceReply&) mutable {
    regions_.push_back(std::move(copy));
    by_slots_ = true;
  };
}

Transcript::Change Transcript::change(const RemMemReg& request) {
  return [this, layout = request.layout](const DeviceReply&) {
    std::erase_if(regions_, [&](const MemoryRegion& region) { return names(layout, region); });
  };
}

Transcript::Change Transcript::change(const SetLogBase& request) {
  SetLogBase copy{.size = request.size, .offset = request.offset, .fd = copy_of(request.fd)};
  return [this, copy = std::move(copy)](const DeviceReply&) mutable { log_base_ = std::move(copy); };
}

Transcript::Change Transcript::change(const SetLogFd& request) {
  return [this, copy = given(request.fd)](const DeviceReply&) mutable { log_ = std::move(copy); };
}

Transcript::Change Transcript::change(const SetVringNum& request) {
  return [this, request](const DeviceReply&) { rings_[request.ring].size = request.size; };
}

Transcript::Change Transcript::change(const SetVringAddr& request) {
  return [this, request](const DeviceReply&) { rings_[request.ring].address = request; };
}

Transcript::Change Transcript::change(const SetVringBase& request) {
  return [this, request](const DeviceReply&) { rings_[request.ring].base = request.base; };
}

Transcript::Change Transcript::change(const SetVringEndian& request) {
  return [this, request](const DeviceReply&) { rings_[request.ring].big_endian = request.big; };
}

Transcript::Change Transcript::change(const SetVringEnable& request) {
  return [this, request](const DeviceReply&) { rings_[request.ring].enable = request.enable; };
}

Transcript::Change Transcript::stop(RingIndex index) {
  return [this, index](const DeviceReply& reply) {
    Ring& ring = rings_[index];
    ring.base = std::get<RingState>(reply).value;
    ring.kick = {};
    ring.kicked_in_band = false;
  };
}

Transcript::Change Transcript::change(const SetVringKick& request) {
  return [this, index = request.ring, kick = given(request.fd)](const DeviceReply&) mutable {
    rings_[index].kick = std::move(kick);
  };
}

Transcript::Change Transcript::change(const VringKick& request) {
  return [this, index = request.ring](const DeviceReply&) { rings_[index].kicked_in_band = true; };
}

Transcript::Change Transcript::change(const SetVringCall& request) {
  return [this, index = request.ring, call = given(request.fd)](const DeviceReply&) mutable {
    rings_[index].call = std::move(call);
  };
}

Transcript::Change Transcript::change(const SetVringErr& request) {
  return [this, index = request.ring, err = given(request.fd)](const DeviceReply&) mutable {
    rings_[index].err = std::move(err);
  };
}

Transcript::Change Transcript::change(const SetFrontEnd& request) {
  return [this, front_end = request.front_end](const DeviceReply&) { front_end_ = front_end; };
}

// As the device does it: what an invalidation touches is gone, and 2^64 bytes have no number.
Transcript::Change Transcript::change(const UpdateIotlb& request) {
  return [this, message = request.message](const DeviceReply&) {
    if (message.type == IotlbType::invalidate) {
      const bool everything = message.size == 0;
      iotlb_ = everything ? memory::IotlbTable::empty() : iotlb_->without(message.iova, message.size);
      return;
    }
    const auto table = iotlb_->with({.iova = message.iova,
                                     .size = message.size,
                                     .front_end = message.front_end,
                                     .access = static_cast<memory::Access>(message.permission)});
    if (table) iotlb_ = *table;
  };
}

Transcript::Change Transcript::change(const NetSetMtu& request) {
  return [this, mtu = request.mtu](const DeviceReply&) { mtu_ = mtu; };
}

Transcript::Change Transcript::change(const SetConfig& request) {
  return [this, config = request.config](const DeviceReply&) {
    std::erase_if(config_, [&](const ConfigBytes& other) {
      return other.offset == config.offset && other.bytes.size() == config.bytes.size();
    });
    too_much_config_ = config_.size() >= most_config_writes;
    if (!too_much_config_) config_.push_back(config);
  };
}

Transcript::Change Transcript::change(const SetStatus& request) {
  return [this, status = request.status](const DeviceReply&) {
    if (status == 0) reset();
    status_ = status;
  };
}

Transcript::Change Transcript::change(const ResetDevice&) {
  return [this](const DeviceReply&) {
    reset();
    for (auto& [index, ring] : rings_) ring.enable = 0;
  };
}

// What the driver has set up goes; memory, notification fds and protocol features stay.
void Transcript::reset() {
  for (auto& [index, ring] : rings_) {
    ring.size.reset();
    ring.address.reset();
    ring.base = 0;
    ring.kick = {};
    ring.kicked_in_band = false;
  }
  features_.reset();
  status_.reset();
  config_.clear();
  too_much_config_ = false;
}

Transcript::Change Transcript::change(const SetInflightFd& request) {
  const InflightArea& area = request.area;
  InflightArea copy{.size = area.size,
                    .offset = area.offset,
                    .queues = area.queues,
                    .queue_size = area.queue_size,
                    .fd = copy_of(area.fd)};
  return [this, copy = std::move(copy)](const DeviceReply&) mutable { inflight_ = std::move(copy); };
}

Transcript::Change Transcript::change(const PostcopyAdvise&) {
  return [this](const DeviceReply&) { postcopy_ = true; };
}

Transcript::Change Transcript::change(const PostcopyEnd&) {
  return [this](const DeviceReply&) { postcopy_ = false; };
}

Transcript::Change Transcript::change(const SetDeviceStateFd&) {
  return [this](const DeviceReply&) { state_moves_ = true; };
}

Transcript::Change Transcript::change(const CheckDeviceState&) {
  return [this](const DeviceReply&) { state_moves_ = false; };
}

Transcript::Change Transcript::change(const CreateCryptoSession&) {
  return [this](const DeviceReply&) { ++crypto_sessions_; };
}

Transcript::Change Transcript::change(const CloseCryptoSession&) {
  return [this](const DeviceReply&) { crypto_sessions_ -= crypto_sessions_ > 0 ? 1 : 0; };
}

Transcript::Change Transcript::change(const GpuSetSocket&) {
  return [this](const DeviceReply&) { has_gpu_socket_ = true; };
}

UniqueFd Transcript::copy_of(const UniqueFd& fd) {
  if (!fd) return {};
  Result<UniqueFd> copy = fd.duplicate();
  if (!copy) out_of_fds_ = true;
  return copy ? *std::move(copy) : UniqueFd();
}

Transcript::Given Transcript::given(const UniqueFd& fd) { return {.came = true, .fd = copy_of(fd)}; }

// ---- telling it again

Result<> Transcript::check_obstacles() const {
  if (postcopy_) return refused("a postcopy migration is under way");
  if (state_moves_) return refused("the state of the device is being migrated");
  if (crypto_sessions_ > 0) return refused("crypto sessions cannot be told again", crypto_sessions_);
  if (has_gpu_socket_) return refused("the socket of a display cannot be told again");
  if (too_much_config_) return refused("too many fields of the configuration space were written");
  if (out_of_fds_) return refused("there were too few file descriptors to keep all that is needed");
  return {};
}

Result<std::vector<DeviceRequest>> Transcript::setting() const {
  TRY(check_obstacles());
  std::vector<DeviceRequest> told;
  if (owned_) told.emplace_back(SetOwner{});
  if (capabilities_) told.emplace_back(SetProtocolFeatures{*capabilities_});
  if (front_end_) told.emplace_back(SetFrontEnd{front_end_});
  if (features_) told.emplace_back(SetFeatures{*features_});
  if (mtu_) told.emplace_back(NetSetMtu{*mtu_});
  for (const ConfigBytes& config : config_) told.emplace_back(SetConfig{config});
  TRY(tell_memory(told));
  tell_iotlb(told);
  for (const auto& [index, ring] : rings_) TRY(tell_ring(index, ring, told));
  return told;
}

Result<> Transcript::tell_memory(std::vector<DeviceRequest>& to) const {
  const bool one_by_one = by_slots_ || regions_.size() > table_regions;
  SetMemTable table;
  for (const MemoryRegion& region : regions_) {
    MemoryRegion copy = TRY(again(region));
    if (one_by_one)
      to.emplace_back(AddMemReg{std::move(copy)});
    else
      table.regions.push_back(std::move(copy));
  }
  if (!table.regions.empty()) to.emplace_back(std::move(table));
  if (log_base_) {
    to.emplace_back(
        SetLogBase{.size = log_base_->size, .offset = log_base_->offset, .fd = TRY(again(log_base_->fd))});
  }
  if (log_.fd) to.emplace_back(SetLogFd{TRY(again(log_.fd))});
  if (!inflight_) return {};
  to.emplace_back(SetInflightFd{{.size = inflight_->size,
                                 .offset = inflight_->offset,
                                 .queues = inflight_->queues,
                                 .queue_size = inflight_->queue_size,
                                 .fd = TRY(again(inflight_->fd))}});
  return {};
}

void Transcript::tell_iotlb(std::vector<DeviceRequest>& to) const {
  for (const memory::IotlbEntry& entry : iotlb_->entries()) {
    to.emplace_back(UpdateIotlb{{.iova = entry.iova,
                                 .size = entry.size,
                                 .front_end = entry.front_end,
                                 .permission = static_cast<uint8_t>(entry.access),
                                 .type = IotlbType::update}});
  }
}

Result<> Transcript::tell_ring(RingIndex index, const Ring& ring, std::vector<DeviceRequest>& to) {
  if (ring.size) to.emplace_back(SetVringNum{.ring = index, .size = *ring.size});
  if (ring.big_endian) to.emplace_back(SetVringEndian{.ring = index, .big = *ring.big_endian});
  if (ring.address) to.emplace_back(*ring.address);
  if (ring.call.came) to.emplace_back(SetVringCall{.ring = index, .fd = TRY(again(ring.call.fd))});
  if (ring.err.came) to.emplace_back(SetVringErr{.ring = index, .fd = TRY(again(ring.err.fd))});
  return {};
}

Result<std::vector<DeviceRequest>> Transcript::start(std::span<const RingState> bases) const {
  std::vector<DeviceRequest> told;
  // A fresh device has status 0, and to write it would reset what it was given besides.
  if (status_.value_or(0) != 0) told.emplace_back(SetStatus{*status_});
  for (const auto& [index, ring] : rings_) {
    const auto stands = std::ranges::find(bases, index, &RingState::ring);
    const uint32_t base = stands == bases.end() ? ring.base : stands->value;
    told.emplace_back(SetVringBase{.ring = index, .base = base});
    TRY(tell_start(index, ring, told));
  }
  return told;
}

Result<> Transcript::tell_start(RingIndex index, const Ring& ring, std::vector<DeviceRequest>& to) {
  if (ring.enable) to.emplace_back(SetVringEnable{.ring = index, .enable = *ring.enable});
  if (ring.kick.came) to.emplace_back(SetVringKick{.ring = index, .fd = TRY(again(ring.kick.fd))});
  if (ring.kicked_in_band) to.emplace_back(VringKick{index});
  return {};
}

}  // namespace ringway::vhost
