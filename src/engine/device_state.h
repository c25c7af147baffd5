// The state of a device as the bytes that go from one back-end to another (vhost-user "Migrating back-end
// state"): what a Model saves, in an envelope that tells a whole, unchanged state of the same kind of device
// from everything else. Any thread.
//
//   u64 magic, u32 version, u32 device id, u64 length, the model's bytes, u32 CRC-32 of all before;
//   little-endian
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ringway/base/result.h"

namespace ringway::engine {

inline constexpr size_t max_model_state = 1 << 20;         // bytes
inline constexpr size_t max_state = max_model_state + 28;  // with the envelope

[[nodiscard]] std::vector<std::byte> wrap_state(uint32_t device_id, std::span<const std::byte> model);
// What the model saved; refused if anything is wrong with it.
Result<std::span<const std::byte>> unwrap_state(uint32_t device_id, std::span<const std::byte> state);

}  // namespace ringway::engine
