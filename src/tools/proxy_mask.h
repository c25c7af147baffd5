// What users write of features: names and numbers to bits. Any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "ringway/tools/device_names.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {

// "RING_PACKED,EVENT_IDX,40": names as in the specification, with or without VIRTIO_F_ or the device's
// prefix, and bit numbers. Names of devices' own features need `type` (may be null) if several devices have
// them.
Parsed<uint64_t> parse_features(std::string_view list, const DeviceType* type);
// Likewise, with or without VHOST_USER_PROTOCOL_F_.
Parsed<uint64_t> parse_protocol_features(std::string_view list);
// "170000e44", with or without 0x.
Parsed<uint64_t> parse_bits(std::string_view text);

// What is taken away if only the features in `kept` shall be left. VHOST_F_LOG_ALL and bit 30 are none of the
// device's, and migration and most messages need them: they stay.
[[nodiscard]] uint64_t all_features_but(uint64_t kept);

// Adds the features of `type` (may be null) that cannot be offered without one that is in `taken`: VIRTIO
// "Feature bit requirements".
[[nodiscard]] uint64_t with_dependent_features(uint64_t taken, const DeviceType* type);

}  // namespace ringway::tools
