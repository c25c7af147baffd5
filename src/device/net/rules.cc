#include "ringway/device/net/rules.h"

#include <algorithm>

namespace ringway::net {

bool Filter::Table::holds(const Mac& mac) const { return all || std::ranges::find(macs, mac) != macs.end(); }

bool Filter::passes(std::span<const std::byte> head) const {
  if (promiscuous) return true;
  const auto byte = [&](size_t at) { return std::to_integer<unsigned>(head[at]); };
  const unsigned type = byte(12) << 8U | byte(13);
  if (by_vlan && type == 0x8100) {
    if (head.size() < 16 || !vlans[(byte(14) << 8U | byte(15)) & 0xfffU]) return false;
  }
  Mac to;
  std::ranges::copy(head.first(to.size()), to.begin());
  if ((byte(0) & 1U) == 0) return !no_unicast && (all_unicast || to == own || unicast.holds(to));
  if (std::ranges::all_of(to, [](std::byte one) { return one == std::byte{0xff}; })) return !no_broadcast;
  return !no_multicast && (all_multicast || multicast.holds(to));
}

uint16_t Spread::pair_for(const HashResult& result, uint16_t here, uint16_t pairs) const {
  const bool classified = result.report != VIRTIO_NET_HASH_REPORT_NONE;
  if (!table.empty()) return classified ? table[result.value & (table.size() - 1)] : unclassified;
  return automatic && classified && pairs > 0 ? static_cast<uint16_t>(result.value % pairs) : here;
}

}  // namespace ringway::net
