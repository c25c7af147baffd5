#include "ringway/user/negotiation.h"

#include <utility>

namespace ringway::user {
namespace {

using namespace vhost;

constexpr uint64_t protocol_features_bit = bit(VHOST_USER_F_PROTOCOL_FEATURES);

bool has_all(uint64_t bits, uint64_t wanted) { return (bits & wanted) == wanted; }

// vhost-user "In-band notifications": an error, for which the back-end closes the connection.
bool is_fatal(uint64_t capabilities) {
  return has_all(capabilities, bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)) &&
         !has_all(capabilities,
                  bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) | bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
}

}  // namespace

// ---- the back-end's side

Result<DeviceReply> BackEndNegotiation::handle(DeviceRequest request) {
  return std::visit([this](auto&& one) { return answer(std::forward<decltype(one)>(one)); },
                    std::move(request));
}

template <class Other>
Result<DeviceReply> BackEndNegotiation::answer(Other request) {
  return next_.handle(std::move(request));
}

Result<DeviceReply> BackEndNegotiation::answer(GetFeatures request) {
  return TRY(call(next_, request)) | (offered_.protocol_features ? protocol_features_bit : 0);
}

Result<DeviceReply> BackEndNegotiation::answer(SetFeatures request) {
  if (!offered_.protocol_features && has_all(request.features, protocol_features_bit))
    return violation("features that were not offered", protocol_features_bit);
  TRY(call(next_, request));
  negotiated_.set_features(request.features);
  return Done{};
}

Result<DeviceReply> BackEndNegotiation::answer(GetProtocolFeatures request) {
  return Capabilities{TRY(call(next_, request)).bits | offered_.capabilities};
}

Result<DeviceReply> BackEndNegotiation::answer(SetProtocolFeatures request) {
  const uint64_t all = request.capabilities.bits;
  if (is_fatal(all)) return gone("in-band notifications without BACKEND_REQ and REPLY_ACK");
  const uint64_t strange = all & transport_protocol_features & ~offered_.capabilities;
  if (strange != 0) return violation("protocol features that were not offered", strange);
  request.capabilities.bits &= ~transport_protocol_features;
  TRY(call(next_, request));
  negotiated_.set_capabilities(all);
  return Done{};
}

// ---- the front-end's side

Result<DeviceReply> FrontEndNegotiation::handle(DeviceRequest request) {
  return std::visit([this](auto&& one) { return answer(std::forward<decltype(one)>(one)); },
                    std::move(request));
}

template <class Other>
Result<DeviceReply> FrontEndNegotiation::answer(Other request) {
  return next_.handle(std::move(request));
}

Result<uint64_t> FrontEndNegotiation::offered_features() {
  if (!knows_features_) offered_features_ = TRY(call(next_, GetFeatures{}));
  knows_features_ = true;
  return offered_features_;
}

// Bits that nobody has named yet are ignored.
Result<uint64_t> FrontEndNegotiation::offered_capabilities() {
  if (!has_all(TRY(offered_features()), protocol_features_bit)) return 0;
  if (!knows_capabilities_)
    offered_capabilities_ = TRY(call(next_, GetProtocolFeatures{})).bits & known_protocol_features;
  knows_capabilities_ = true;
  return offered_capabilities_;
}

Result<SocketFeatures> FrontEndNegotiation::offered_by_socket() {
  if (!has_all(TRY(offered_features()), protocol_features_bit))
    return SocketFeatures{.protocol_features = false, .capabilities = 0};
  return SocketFeatures{.capabilities = TRY(offered_capabilities()) & transport_protocol_features};
}

Result<DeviceReply> FrontEndNegotiation::answer(GetFeatures) {
  knows_features_ = false;
  return TRY(offered_features()) & ~protocol_features_bit;
}

Result<DeviceReply> FrontEndNegotiation::answer(SetFeatures request) {
  if (!has_all(TRY(offered_features()), protocol_features_bit)) request.features &= ~protocol_features_bit;
  TRY(call(next_, request));
  negotiated_.set_features(request.features);
  features_set_ = true;
  return Done{};
}

Result<DeviceReply> FrontEndNegotiation::answer(GetProtocolFeatures) {
  knows_capabilities_ = false;
  return Capabilities{TRY(offered_capabilities()) & ~transport_protocol_features};
}

Result<DeviceReply> FrontEndNegotiation::answer(SetProtocolFeatures request) {
  const uint64_t offered = TRY(offered_capabilities());
  if (!has_all(TRY(offered_features()), protocol_features_bit)) {
    if (request.capabilities.bits != 0) return refused("the back-end has no protocol features");
    return Done{};
  }
  request.capabilities.bits |= offered & transport_protocol_features;
  if (is_fatal(request.capabilities.bits)) return refused("the back-end cannot do in-band notifications");
  TRY(call(next_, request));
  negotiated_.set_capabilities(request.capabilities.bits);
  return Done{};
}

Result<DeviceReply> FrontEndNegotiation::answer(GetQueueNum request) {
  if (!has_all(TRY(offered_capabilities()), bit(VHOST_USER_PROTOCOL_F_MQ))) {
    return refused("the back-end does not tell its number of queues");
  }
  return next_.handle(request);
}

// QEMU enables the rings of network devices before it sets features: what is offered counts then.
Result<bool> FrontEndNegotiation::can_enable_rings() {
  if (features_set_) return negotiated_.get().has_feature(VHOST_USER_F_PROTOCOL_FEATURES);
  return has_all(TRY(offered_features()), protocol_features_bit);
}

// Without bit 30 rings are enabled as they start, and there is no way to say anything else.
Result<DeviceReply> FrontEndNegotiation::answer(SetVringEnable request) {
  if (TRY(can_enable_rings())) return next_.handle(request);
  if (request.enable == 0) return refused("the back-end cannot disable rings");
  return Done{};
}

}  // namespace ringway::user
