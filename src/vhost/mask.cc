#include "ringway/vhost/mask.h"

#include <linux/virtio_config.h>

#include <array>
#include <memory>
#include <utility>

#include "ringway/vhost/one_way.h"

namespace ringway::vhost {
namespace {

// Without any of one, all of the other goes. Causes stand before what follows from their effects.
struct Consequence {
  Agreement without;
  Agreement goes;
};

constexpr auto consequences = std::to_array<Consequence>({
    {{.features = bit(VHOST_USER_F_PROTOCOL_FEATURES)}, {.capabilities = ~uint64_t{0}}},
    {{.capabilities = bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ)},
     {.features = bit(VIRTIO_F_ACCESS_PLATFORM),  // IOTLB misses are told over the back-end channel
      .capabilities =
          bit(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) | bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)}},
    {{.capabilities = bit(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD)},
     {.capabilities = bit(VHOST_USER_PROTOCOL_F_HOST_NOTIFIER) | bit(VHOST_USER_PROTOCOL_F_SHMEM)}},
    {{.capabilities = bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)},
     {.capabilities = bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)}},
    {{.capabilities = bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)},
     {.capabilities = bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT)}},
    {{.capabilities = bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT)},
     {.capabilities = bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN)}},
});

bool meets(const Agreement& a, const Agreement& b) {
  return (a.features & b.features) != 0 || (a.capabilities & b.capabilities) != 0;
}

// What depends on a bit is refused as if it had not been negotiated.
template <class Request>
Result<> allow(const Agreement& taken, const Request& request) {
  const RequestInfo& info = info_of(request);
  const Agreement left{.features = ~taken.features, .capabilities = ~taken.capabilities};
  if (left.allows(info.need)) return {};
  return std::unexpected(refused("was not negotiated").error().about(info.name));
}

// What the device may still tell of a front-end that has been masked from it.
class MaskedFrontEnd final : public FrontEnd, public OneWay<FrontEndRequest> {
 public:
  MaskedFrontEnd(std::shared_ptr<FrontEnd> next, Agreement taken) : next_(std::move(next)), taken_(taken) {}
  Result<FrontEndReply> handle(FrontEndRequest request) override {
    TRY(allow(taken_, request));
    return next_->handle(std::move(request));
  }
  Result<> tell(FrontEndRequest request) override {
    TRY(allow(taken_, request));
    return vhost::tell(*next_, std::move(request));
  }

 private:
  const std::shared_ptr<FrontEnd> next_;
  const Agreement taken_;
};

}  // namespace

Mask::Taken Mask::with_consequences(Taken taken) {
  for (const auto& [without, goes] : consequences) {
    if (!meets(taken, without)) continue;
    taken.features |= goes.features;
    taken.capabilities |= goes.capabilities;
  }
  return taken;
}

template <class T>
Result<DeviceReply> Mask::forward(T request) {
  return next_.handle(std::move(request));
}

Result<DeviceReply> Mask::forward(GetFeatures request) {
  return TRY(call(next_, request)) & ~taken_.features;
}

Result<DeviceReply> Mask::forward(GetProtocolFeatures request) {
  return Capabilities{TRY(call(next_, request)).bits & ~taken_.capabilities};
}

Result<DeviceReply> Mask::forward(SetFrontEnd request) {
  request.front_end = std::make_shared<MaskedFrontEnd>(std::move(request.front_end), taken_);
  return next_.handle(std::move(request));
}

// Behind the others: clang 19 does not find the destructor of the reply in a lambda that is the first to need
// it.
Result<DeviceReply> Mask::handle(DeviceRequest request) {
  TRY(allow(taken_, request));
  return std::visit(
      [this](auto& one) -> Result<DeviceReply> {
        TRY(check(one));
        return forward(std::move(one));
      },
      request);
}

// ---- what the catalogue does not say: requests that need a bit to be offered, or only in one of their forms

Result<> Mask::check(const SetFeatures& request) const {
  const uint64_t strange = request.features & taken_.features;
  if (strange != 0) return violation("features that were not offered", strange);
  return {};
}

Result<> Mask::check(const SetProtocolFeatures& request) const {
  const uint64_t strange = request.capabilities.bits & taken_.capabilities;
  if (strange != 0) return violation("protocol features that were not offered", strange);
  return {};
}

Result<> Mask::check(const GetQueueNum&) const {
  if (taken_.has_capability(VHOST_USER_PROTOCOL_F_MQ)) return refused("MQ was not offered");
  return {};
}

Result<> Mask::check(const SetLogBase& request) const {
  if (taken_.has_feature(VHOST_F_LOG_ALL)) return refused("LOG_ALL was not offered");
  if (request.fd && taken_.has_capability(VHOST_USER_PROTOCOL_F_LOG_SHMFD))
    return refused("LOG_SHMFD was not negotiated");
  return {};
}

Result<> Mask::check(const SetLogFd&) const {
  if (taken_.has_feature(VHOST_F_LOG_ALL)) return refused("LOG_ALL was not offered");
  return {};
}

Result<> Mask::check(const SetVringAddr& request) const {
  const bool logs = (request.flags & (1U << VHOST_VRING_F_LOG)) != 0;
  if (logs && taken_.has_feature(VHOST_F_LOG_ALL)) return refused("LOG_ALL was not offered");
  return {};
}

Result<> Mask::check(const SetVringEnable&) const {
  if (taken_.has_feature(VHOST_USER_F_PROTOCOL_FEATURES))
    return refused("VHOST_USER_F_PROTOCOL_FEATURES was not negotiated");
  return {};
}

}  // namespace ringway::vhost
