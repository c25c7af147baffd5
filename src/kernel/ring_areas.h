// What both files of KernelDevice know of rings and features. Any thread.
#pragma once

#include <cstdint>

#include "ringway/vhost/features.h"

namespace ringway::kernel {

inline constexpr uint64_t protocol_features_bit = vhost::bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);

inline std::unexpected<Error> not_offered() { return refused("not offered by the kernel"); }

// VIRTIO "Virtqueues": bytes of the three areas.
inline uint64_t desc_bytes(uint32_t size) { return uint64_t{16} * size; }
inline uint64_t avail_bytes(uint32_t size, bool packed) { return packed ? 4 : 6 + uint64_t{2} * size; }
inline uint64_t used_bytes(uint32_t size, bool packed) { return packed ? 4 : 6 + uint64_t{8} * size; }

}  // namespace ringway::kernel
