// What virtio devices and their feature bits are called, and which device a back-end can be. Any thread.
// VIRTIO "Device Types", "Reserved Feature Bits".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ringway::tools {

struct BitName {
  unsigned bit = 0;
  std::string_view name;  // as in the specification, without VIRTIO_ and the device's prefix
};

struct DeviceType {
  uint32_t id = 0;
  std::string_view name;  // "blk"
  std::span<const BitName> features;
  uint64_t typical = 0;  // mask of features that hardly any such device lacks

  [[nodiscard]] uint64_t feature_mask() const;
};

[[nodiscard]] std::span<const DeviceType> device_types();
[[nodiscard]] const DeviceType* find_device_type(std::string_view name);

// Bits of rings and transport, and those that vhost borrows.
[[nodiscard]] std::span<const BitName> common_features();
[[nodiscard]] uint64_t common_feature_mask();

// "SEG_MAX"; "bit 17" for one without a name. `type` may be null.
[[nodiscard]] std::string feature_name(const DeviceType* type, unsigned bit);

// The devices that may have these features, likeliest first: a back-end does not say what it is. `protocol`
// are its vhost-user protocol features. Empty if nothing tells.
[[nodiscard]] std::vector<const DeviceType*> possible_types(uint64_t features, uint64_t protocol);

}  // namespace ringway::tools
