#include "ringway/tools/device_kinds.h"

#include <algorithm>
#include <array>

namespace ringway::tools {

std::span<const DeviceKind> device_kinds() {
  static const std::array kinds = {
      blk_kind(),
      net_kind(),
  };
  return kinds;
}

const DeviceKind* find_device_kind(std::string_view name) {
  const auto kinds = device_kinds();
  const auto found =
      std::ranges::find(kinds, name, [](const DeviceKind& kind) { return std::string_view(kind.name); });
  return found == kinds.end() ? nullptr : &*found;
}

}  // namespace ringway::tools
