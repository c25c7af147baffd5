#include "ringway/vhost/contract.h"

#include <linux/virtio_config.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace ringway::vhost {
namespace {

constexpr uint64_t protocol_features_bit = bit(VHOST_USER_F_PROTOCOL_FEATURES);
// What SetFeatures may switch while rings are started.
constexpr uint64_t always_switchable = bit(VHOST_F_LOG_ALL) | protocol_features_bit;

bool belongs_to_socket(Need need) {
  return need.kind == Need::Kind::capability && (bit(need.bit) & transport_protocol_features) != 0;
}

bool has_same_areas(const SetVringAddr& a, const SetVringAddr& b) {
  return a.desc == b.desc && a.used == b.used && a.avail == b.avail;
}

}  // namespace

Result<DeviceReply> Contract::handle(DeviceRequest request) {
  return std::visit([this](auto& one) { return forward(std::move(one)); }, request);
}

template <class T>
Result<DeviceReply> Contract::forward(T request) {
  TRY(check_common(request));
  TRY(check(request));
  const Change remember = change(request);
  DeviceReply reply = TRY(next_.handle(std::move(request)));
  remember();
  return reply;
}

template <class T>
Result<> Contract::check_common(const T& request) const {
  const Need need = catalogue<DeviceRequest>[index_of<DeviceRequest, T>].need;
  if (!belongs_to_socket(need) && !agreed_.allows(need)) return refused("was not negotiated");
  if constexpr (requires { request.ring; }) {
    if (request.ring >= limits_.queues) return violation("no such ring", request.ring);
  }
  return {};
}

// ---- negotiation

Result<> Contract::check(const SetFeatures& request) {
  const uint64_t strange = request.features & ~(TRY(offered_features()) | protocol_features_bit);
  if (strange != 0) return violation("features that were not offered", strange);
  if (any_started() && ((request.features ^ agreed_.features) & ~always_switchable) != 0) {
    return refused("features cannot change while rings are started");
  }
  return {};
}

Contract::Change Contract::change(const SetFeatures& request) {
  return [this, features = request.features] {
    agreed_.features = features;
    features_set_ = true;
  };
}

Result<> Contract::check(const SetProtocolFeatures& request) {
  const uint64_t wanted = request.capabilities.bits;
  const uint64_t strange = wanted & ~TRY(offered_capabilities());
  if (strange != 0) return violation("protocol features that were not offered", strange);
  const Agreement after{.capabilities = wanted};
  if (after.has_capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN) &&
      !(after.has_capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT) &&
        after.has_capability(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))) {
    return violation("GET_VRING_BASE_SKIP_DRAIN without GET_VRING_BASE_INFLIGHT and INFLIGHT_SHMFD");
  }
  return {};
}

Contract::Change Contract::change(const SetProtocolFeatures& request) {
  return [this, bits = request.capabilities.bits] {
    agreed_.capabilities = bits;
    capabilities_set_ = true;
  };
}

Result<uint64_t> Contract::offered_features() {
  if (!offered_features_) offered_features_ = TRY(call(next_, GetFeatures{}));
  return *offered_features_;
}

Result<uint64_t> Contract::offered_capabilities() {
  if (!offered_capabilities_) offered_capabilities_ = TRY(call(next_, GetProtocolFeatures{})).bits;
  return *offered_capabilities_;
}

bool Contract::is_split() const { return features_set_ && !agreed_.has_feature(VIRTIO_F_RING_PACKED); }
bool Contract::is_packed() const { return features_set_ && agreed_.has_feature(VIRTIO_F_RING_PACKED); }

// QEMU enables the rings of network devices before it sends SET_FEATURES.
bool Contract::knows_protocol_features() const {
  return features_set_ ? agreed_.has_feature(VHOST_USER_F_PROTOCOL_FEATURES) : capabilities_set_;
}

// ---- memory, log

Result<> Contract::check_region(const memory::RegionLayout& layout) const {
  if (!agreed_.has_capability(VHOST_USER_PROTOCOL_F_GPA_ADDRESSES)) return {};
  if (layout.front_end.value != layout.guest.value) {
    return violation("user address is not the guest address, with GPA_ADDRESSES", layout.front_end.value);
  }
  return {};
}

Result<> Contract::check(const SetMemTable& request) {
  for (const MemoryRegion& region : request.regions) TRY(check_region(region.layout));
  return {};
}

Result<> Contract::check(const AddMemReg& request) { return check_region(request.region.layout); }

Result<> Contract::check(const SetLogBase& request) {
  if (request.fd && !agreed_.has_capability(VHOST_USER_PROTOCOL_F_LOG_SHMFD))
    return refused("LOG_SHMFD was not negotiated");
  return {};
}

// ---- rings

Result<> Contract::check(const SetVringNum& request) {
  if (request.size == 0 || request.size > limits_.ring_size)
    return violation("ring size is out of range", request.size);
  if (is_split() && !std::has_single_bit(request.size))
    return violation("ring size is not a power of two", request.size);
  if (is_started(request.ring)) return refused("the size of a started ring cannot change");
  return {};
}

Result<> Contract::check(const SetVringAddr& request) {
  const uint64_t avail_alignment = is_packed() ? 4 : 2;
  if (request.desc % 16 != 0) return violation("descriptor area is not aligned", request.desc);
  if (request.avail % avail_alignment != 0) return violation("driver area is not aligned", request.avail);
  if (request.used % 4 != 0) return violation("device area is not aligned", request.used);
  if ((request.flags & ~(1U << VHOST_VRING_F_LOG)) != 0)
    return violation("undefined ring flags", request.flags);
  const std::optional<SetVringAddr>& before = rings_[request.ring].address;
  if (is_started(request.ring) && before && !has_same_areas(request, *before)) {
    return refused("the addresses of a started ring cannot change");
  }
  return {};
}

Contract::Change Contract::change(const SetVringNum& request) {
  return [this, ring = request.ring] { rings_[ring].has_size = true; };
}

Contract::Change Contract::change(const SetVringAddr& request) {
  return [this, request] { rings_[request.ring].address = request; };
}

Result<> Contract::check(const SetVringBase& request) {
  if (is_split() && request.base > 0xffff)
    return violation("base of a split ring has more than 16 bits", request.base);
  if (is_started(request.ring)) return refused("the base of a started ring cannot change");
  return {};
}

Result<> Contract::check(const SetVringEnable& request) {
  if (request.enable > 1) return violation("enable is neither 0 nor 1", request.enable);
  if (!knows_protocol_features()) return refused("VHOST_USER_F_PROTOCOL_FEATURES was not negotiated");
  return {};
}

Result<> Contract::check(const SetVringEndian& request) {
  if (request.big > 1) return violation("endianness is neither 0 nor 1", request.big);
  if (is_started(request.ring)) return refused("the endianness of a started ring cannot change");
  return {};
}

Contract::Change Contract::start(RingIndex ring) {
  return [this, ring] { rings_[ring].kicked = true; };
}

Contract::Change Contract::stop(RingIndex ring) {
  return [this, ring] { rings_[ring].kicked = false; };
}

bool Contract::any_started() const {
  return std::any_of(rings_.begin(), rings_.end(), [](const Ring& ring) { return ring.is_started(); });
}

// ---- the device

// VIRTIO "Network Device", Device configuration layout: the range of mtu.
Result<> Contract::check(const NetSetMtu& request) {
  if (request.mtu < 68 || request.mtu > 65535) return refused("MTU is out of range", request.mtu);
  return {};
}

// What is invalidated may be anything: an invalidation that is refused would leave a translation in use.
Result<> Contract::check(const UpdateIotlb& request) {
  const IotlbMessage& message = request.message;
  if (message.type == IotlbType::invalidate) return {};
  if (message.type != IotlbType::update) return violation("neither update nor invalidate");
  if (message.permission > 3) return violation("undefined permission", message.permission);
  if (message.size == 0) return violation("an IOTLB entry of no bytes");
  if (!message.iova.plus(message.size - 1) || !message.front_end.plus(message.size - 1)) {
    return violation("an IOTLB entry wraps around", message.size);
  }
  return {};
}

Result<> Contract::check(const GetConfig& request) {
  if (request.size > max_config_bytes)
    return refused("more than 256 bytes of configuration space", request.size);
  return {};
}

Result<> Contract::check(const SetConfig& request) {
  if (request.config.flags > VHOST_CONFIG_MIGRATION)
    return violation("undefined config flags", request.config.flags);
  if (request.config.bytes.size() > max_config_bytes)
    return refused("more than 256 bytes of configuration space");
  return {};
}

Result<> Contract::check(const SetStatus& request) {
  if (request.status > 0xff) return violation("undefined status", request.status);
  return {};
}

// VIRTIO "Device Status Field": writing 0 resets the device.
Contract::Change Contract::change(const SetStatus& request) {
  if (request.status != 0) return [] {};
  return [this] { reset(); };
}

Contract::Change Contract::change(const ResetDevice&) {
  return [this] { reset(); };
}

// Protocol features belong to the connection and stay.
void Contract::reset() {
  std::fill(rings_.begin(), rings_.end(), Ring{});
  agreed_.features = 0;
  features_set_ = false;
}

// ---- migration

Result<> Contract::check_precopy() const {
  if (!agreed_.has_capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) return {};
  return refused("postcopy and CONFIGURE_MEM_SLOTS exclude each other");
}

Result<> Contract::check(const PostcopyAdvise&) { return check_precopy(); }
Result<> Contract::check(const PostcopyListen&) { return check_precopy(); }

Result<> Contract::check_inflight(uint32_t queues, uint32_t queue_size) const {
  if (queues == 0 || queues > limits_.queues)
    return violation("in-flight area for another number of queues", queues);
  if (queue_size == 0 || queue_size > limits_.ring_size)
    return violation("in-flight area for another ring size", queue_size);
  return {};
}

Result<> Contract::check(const GetInflightFd& request) {
  return check_inflight(request.queues, request.queue_size);
}
Result<> Contract::check(const SetInflightFd& request) {
  return check_inflight(request.area.queues, request.area.queue_size);
}

Result<> Contract::check(const SetDeviceStateFd& request) {
  if (request.direction > 1) return violation("undefined direction of transfer", request.direction);
  if (request.phase != 0) return violation("undefined phase of transfer", request.phase);
  if (any_started()) return refused("device state moves only while all rings are stopped");
  return {};
}

}  // namespace ringway::vhost
