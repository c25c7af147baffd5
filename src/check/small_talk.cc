#include "ringway/check/small_talk.h"

#include <fmt/format.h>

namespace ringway::check {

using vhost::bit;

bool agreed(const Wire& wire, unsigned feature) { return (wire.protocol() & bit(feature)) != 0; }

Or<Wire*> wire_with(Trial& trial, unsigned feature, uint64_t also) {
  Wire* wire = TRY(trial.wire(also | bit(feature)));
  if (!agreed(*wire, feature)) return not_offered(std::string(vhost::protocol_feature_name(feature)));
  return wire;
}

Or<> set_features(Wire& wire) {
  return reach(wire.send(id<vhost::SetFeatures>, payload(wire.features() & (bit_30 | version_1))),
               "SET_FEATURES");
}

Or<> only_features_come(Wire& wire, const char* after) {
  TRY(reach(wire.send(id<vhost::GetFeatures>), after));
  const auto reply = wire.receive();
  if (!reply) return fail(fmt::format("after {}: {}", after, reply.error().to_string()));
  if (reply->header.request != id<vhost::GetFeatures>)
    return fail(fmt::format("{} was answered: {}", after, describe(*reply)));
  return {};
}

uint32_t config_size(const Trial& trial) {
  return trial.kind().config_bytes > 0 ? static_cast<uint32_t>(trial.kind().config_bytes) : 4;
}

Bytes config_request(uint32_t offset, uint32_t size, uint32_t flags) {
  Bytes bytes = payload(offset, size, flags);
  bytes.resize(bytes.size() + size);
  return bytes;
}

}  // namespace ringway::check
