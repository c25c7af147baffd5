// What an Ethernet frame says of itself, as far as ports must know: addresses, one VLAN tag, where IP begins.
// Works on private copies only. Any thread. IEEE 802.3, 802.1Q; RFC 791, 8200.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "ringway/base/endian.h"

namespace ringway::port {

using be16 = Fixed<uint16_t, std::endian::big>;
using be32 = Fixed<uint32_t, std::endian::big>;

inline constexpr size_t ethernet_header = 14;  // bytes
inline constexpr size_t vlan_tag = 4;          // bytes
inline constexpr uint16_t ethertype_ipv4 = 0x0800;
inline constexpr uint16_t ethertype_vlan = 0x8100;
inline constexpr uint16_t ethertype_service_vlan = 0x88a8;
inline constexpr uint16_t ethertype_ipv6 = 0x86dd;
inline constexpr uint8_t protocol_tcp = 6;
inline constexpr uint8_t protocol_udp = 17;

template <class T>
[[nodiscard]] T peek(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class T>
void poke(std::byte* at, const T& value) {
  std::memcpy(at, &value, sizeof value);
}

// A MAC address: its six bytes, the first one lowest.
using Mac = uint64_t;
[[nodiscard]] inline Mac peek_mac(const std::byte* at) {
  return peek<le32>(at) | uint64_t{peek<le16>(at + 4)} << 32;
}
[[nodiscard]] inline bool is_group(Mac mac) { return (mac & 1) != 0; }
inline constexpr Mac broadcast_mac = 0xffff'ffff'ffff;

// Where the headers of an IP packet are, in bytes from the start of the frame.
struct IpPlace {
  size_t network = 0;
  size_t transport = 0;
  uint8_t protocol = 0;  // of the transport
  bool is_ipv6 = false;
};

// `head`: a frame from its first byte on, perhaps not all of it. Nothing if it is no IP packet, if a header
// is not all there, or for a fragment that is not the first.
[[nodiscard]] std::optional<IpPlace> find_ip(std::span<const std::byte> head);

// A number that frames of one flow (addresses, protocol, ports) share. Frames that are not IP: of their
// addresses.
[[nodiscard]] uint32_t flow_hash(std::span<const std::byte> head);

}  // namespace ringway::port
