// What checks of messages say on the way: sessions in which something was agreed on, and barriers. Used on
// the thread of the check.
#pragma once

#include <string>

#include "ringway/check/trial.h"
#include "ringway/vhost/features.h"

namespace ringway::check {

inline constexpr uint64_t reply_ack = vhost::bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
inline constexpr uint64_t bit_30 = vhost::bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
inline constexpr uint64_t version_1 = uint64_t{1} << 32;

// Protocol features with which a session is as any other.
inline constexpr uint64_t plain = vhost::bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | reply_ack |
                                  vhost::bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) |
                                  vhost::bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |
                                  vhost::bit(vhost::VHOST_USER_PROTOCOL_F_STATUS);

[[nodiscard]] bool agreed(const Wire& wire, unsigned feature);
// Not offered without the feature.
Or<Wire*> wire_with(Trial& trial, unsigned feature, uint64_t also = plain);
Or<> set_features(Wire& wire);
// The next message that comes is the answer to GET_FEATURES.
Or<> only_features_come(Wire& wire, const char* after);

// How much configuration space is asked for.
[[nodiscard]] uint32_t config_size(const Trial& trial);
[[nodiscard]] Bytes config_request(uint32_t offset, uint32_t size, uint32_t flags = 0);

}  // namespace ringway::check
