// The VLAN tag of a frame in a switch: what it has, what a station wants, and the change between the two,
// made on the frame's head. Any thread. IEEE 802.1Q "Tag Format".
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "ringway/device/port/ethernet.h"
#include "ringway/device/port/frame.h"
#include "ringway/device/port/station.h"

namespace ringway::port {

struct Tagging {
  bool has_tag = false;
  uint16_t tci = 0;   // of the tag
  uint16_t vlan = 0;  // that the frame belongs to
};

// What the switch asks of a frame's first bytes. A tag more still fits where a head fits.
inline constexpr uint32_t switch_head = max_head - vlan_tag;

// `head`: at least the Ethernet header. False if a tag is not all there.
[[nodiscard]] inline bool find_tag(std::span<const std::byte> head, const Station& from, Tagging& tagging) {
  tagging.has_tag = peek<be16>(&head[12]) == ethertype_vlan;
  tagging.tci = 0;
  tagging.vlan = from.untagged;
  if (!tagging.has_tag) [[likely]]
    return true;
  if (head.size() < ethernet_header + vlan_tag) return false;
  tagging.tci = peek<be16>(&head[14]);
  if (const uint16_t vlan = tagging.tci & 0xfff; vlan != 0) tagging.vlan = vlan;
  return true;
}

// Whether the frame's tag is as the station wants it.
[[nodiscard]] inline bool is_tagged_for(const Station& to, const Tagging& tagging) {
  const bool wants_tag = tagging.vlan != to.untagged;
  return wants_tag == tagging.has_tag && (!wants_tag || (tagging.tci & 0xfff) == tagging.vlan);
}

// Shows the frame as a station wants it. Keep it where it is while the frame is in use.
class Retagged {
 public:
  Retagged(const Frame& frame, const Tagging& tagging, const Station& to) : frame_(frame) {
    if (is_tagged_for(to, tagging)) return;
    const bool wants_tag = tagging.vlan != to.untagged;
    const std::span rest = frame.head.subspan(12 + (tagging.has_tag ? vlan_tag : 0));
    std::byte* to_head = std::ranges::copy(frame.head.first(12), head_.begin()).out;
    if (wants_tag) {
      poke(to_head, be16(ethertype_vlan));
      poke(to_head + 2, be16(static_cast<uint16_t>((tagging.tci & 0xf000) | tagging.vlan)));
      to_head += vlan_tag;
    }
    const std::byte* const end = std::ranges::copy(rest, to_head).out;
    frame_.head = {head_.data(), static_cast<size_t>(end - head_.data())};
    move_offload(int{wants_tag} - int{tagging.has_tag});
  }
  Retagged(const Retagged&) = delete;
  Retagged& operator=(const Retagged&) = delete;
  [[nodiscard]] const Frame& frame() const { return frame_; }

 private:
  void move_offload(int tags) {
    const int bytes = tags * static_cast<int>(vlan_tag);
    frame_.length = static_cast<uint32_t>(static_cast<int64_t>(frame_.length) + bytes);
    const auto move = [bytes](uint16_t& place) {
      if (place != 0) place = static_cast<uint16_t>(place + bytes);
    };
    move(frame_.offload.hdr_len);
    move(frame_.offload.csum_start);
  }

  Frame frame_;
  std::array<std::byte, max_head> head_;
};

}  // namespace ringway::port
