#include "ringway/device/port/ethernet.h"

#include <algorithm>

namespace ringway::port {
namespace {

constexpr size_t ipv4_header = 20;
constexpr size_t ipv6_header = 40;
constexpr unsigned max_extensions = 8;

// RFC 8200 "Extension Headers": those that say how long they are in units of 8 bytes, without the first.
bool is_extension(uint8_t protocol) {
  return protocol == 0 || protocol == 43 || protocol == 60 || protocol == 135;
}
constexpr uint8_t fragment_header = 44;

std::optional<IpPlace> find_ipv4(std::span<const std::byte> head, size_t at) {
  if (head.size() < at + ipv4_header) return {};
  const auto first = std::to_integer<uint8_t>(head[at]);
  const size_t length = (first & size_t{0xf}) * 4;
  if (first >> 4 != 4 || length < ipv4_header || head.size() < at + length) return {};
  if ((peek<be16>(&head[at + 6]) & 0x1fff) != 0) return {};  // a later fragment
  return IpPlace{.network = at, .transport = at + length, .protocol = std::to_integer<uint8_t>(head[at + 9])};
}

std::optional<IpPlace> find_ipv6(std::span<const std::byte> head, size_t at) {
  if (head.size() < at + ipv6_header || std::to_integer<uint8_t>(head[at]) >> 4 != 6) return {};
  IpPlace place{.network = at,
                .transport = at + ipv6_header,
                .protocol = std::to_integer<uint8_t>(head[at + 6]),
                .is_ipv6 = true};
  for (unsigned i = 0; i < max_extensions; ++i) {
    const bool is_fragment = place.protocol == fragment_header;
    if (!is_fragment && !is_extension(place.protocol)) return place;
    if (head.size() < place.transport + 8) return {};
    const std::byte* extension = &head[place.transport];
    if (is_fragment && (peek<be16>(extension + 2) & 0xfff8) != 0) return {};
    place.protocol = std::to_integer<uint8_t>(extension[0]);
    place.transport += is_fragment ? 8 : 8 + size_t{8} * std::to_integer<uint8_t>(extension[1]);
    if (head.size() < place.transport) return {};
  }
  return {};
}

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e37'79b9'7f4a'7c15;
  return hash ^ hash >> 32;
}

}  // namespace

std::optional<IpPlace> find_ip(std::span<const std::byte> head) {
  size_t at = ethernet_header - 2;
  for (unsigned tags = 0; head.size() >= at + 2; ++tags) {
    const uint16_t type = peek<be16>(&head[at]);
    if (type == ethertype_ipv4) return find_ipv4(head, at + 2);
    if (type == ethertype_ipv6) return find_ipv6(head, at + 2);
    if (tags == 2 || (type != ethertype_vlan && type != ethertype_service_vlan)) return {};
    at += vlan_tag;
  }
  return {};
}

uint32_t flow_hash(std::span<const std::byte> head) {
  if (head.size() < ethernet_header) return 0;
  const auto place = find_ip(head);
  if (!place) return static_cast<uint32_t>(mix(mix(0, peek_mac(&head[0])), peek_mac(&head[6])));
  uint64_t hash = place->protocol;
  if (place->is_ipv6) {
    for (size_t i = 0; i < 32; i += 8) hash = mix(hash, peek<uint64_t>(&head[place->network + 8 + i]));
  } else {
    hash = mix(hash, peek<uint64_t>(&head[place->network + 12]));
  }
  // Fragments have no ports, but for the first: all of a packet's must hash alike.
  const bool whole = place->is_ipv6 || (peek<be16>(&head[place->network + 6]) & 0x3fff) == 0;
  const bool has_ports = place->protocol == protocol_tcp || place->protocol == protocol_udp;
  if (whole && has_ports && head.size() >= place->transport + 4) {
    hash = mix(hash, peek<uint32_t>(&head[place->transport]));
  }
  return static_cast<uint32_t>(hash);
}

}  // namespace ringway::port
