// Frames for tests of ports, and an independent look at their checksums. One thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ringway/device/port/ethernet.h"
#include "ringway/device/port/frame.h"

namespace ringway::port::test {

using Bytes = std::vector<std::byte>;

inline Bytes hex(const std::string& digits) {
  Bytes bytes;
  std::string pair;
  for (const char digit : digits) {
    if (digit == ' ') continue;
    pair += digit;
    if (pair.size() < 2) continue;
    bytes.push_back(static_cast<std::byte>(std::stoul(pair, nullptr, 16)));
    pair.clear();
  }
  return bytes;
}

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

inline Bytes counting(size_t size, unsigned first = 0) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(first + i * 7 + i / 256);
  return bytes;
}

inline Bytes mac_bytes(Mac mac) {
  Bytes bytes(6);
  for (unsigned i = 0; i < 6; ++i) bytes[i] = static_cast<std::byte>(mac >> 8 * i);
  return bytes;
}
// A station's own address.
inline Mac station_mac(unsigned number) { return 0x02 | uint64_t{std::byteswap(number)} << 16; }

// Addresses and a type for local experiments, and what it carries.
inline Bytes ethernet(Mac to, Mac from, const Bytes& payload, uint16_t type = 0x88b5) {
  return mac_bytes(to) + mac_bytes(from) +
         Bytes{static_cast<std::byte>(type >> 8), static_cast<std::byte>(type)} + payload;
}
inline Bytes tagged(Mac to, Mac from, uint16_t tci, const Bytes& payload, uint16_t type = 0x88b5) {
  const Bytes tag{static_cast<std::byte>(tci >> 8), static_cast<std::byte>(tci),
                  static_cast<std::byte>(type >> 8), static_cast<std::byte>(type)};
  return ethernet(to, from, tag + payload, ethertype_vlan);
}

// Byte by byte, as RFC 791 words it.
inline uint16_t naive_sum(std::span<const std::byte> bytes, uint32_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); ++i)
    sum += std::to_integer<uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

inline uint32_t pseudo_sum(std::span<const std::byte> frame, const IpPlace& place) {
  const auto addresses =
      place.is_ipv6 ? frame.subspan(place.network + 8, 32) : frame.subspan(place.network + 12, 8);
  return naive_sum(addresses) + static_cast<uint32_t>(frame.size() - place.transport) + place.protocol;
}
// Of IP and of TCP or UDP.
inline bool checksums_are_right(std::span<const std::byte> frame) {
  const auto place = find_ip(frame);
  if (!place) return false;
  if (!place->is_ipv6 &&
      naive_sum(frame.subspan(place->network, place->transport - place->network)) != 0xffff)
    return false;
  return naive_sum(frame.subspan(place->transport), pseudo_sum(frame, *place)) == 0xffff;
}

struct Packet {
  bool ipv6 = false;
  uint8_t protocol = protocol_tcp;
  size_t payload = 100;  // bytes
  uint8_t tcp_flags = 0x10;
  unsigned tags = 0;
  Bytes extension;  // of IPv6, with the protocol in its first byte
};

// As a driver leaves it with checksum offload: the checksum field has the sum of the pseudo header.
struct Built {
  Bytes frame;
  Offload offload;
};
inline Built build(const Packet& packet) {
  const bool tcp = packet.protocol == protocol_tcp;
  Bytes transport = tcp ? hex("1234 0050 01020304 00000000 80") : hex("1234 0035 0000 0000");
  if (tcp)
    transport = transport + Bytes{static_cast<std::byte>(packet.tcp_flags)} +
                hex("ffff 0000 0000 0101080a0000000100000002");
  if (tcp) transport.resize(32);
  transport = transport + counting(packet.payload);
  const size_t length = transport.size();
  if (!tcp) poke(&transport[4], be16(static_cast<uint16_t>(length)));
  Bytes network;
  if (packet.ipv6) {
    network = hex("60000000 0000 00 40 fd000000000000000000000000000001 fd000000000000000000000000000002");
    poke(&network[4], be16(static_cast<uint16_t>(length + packet.extension.size())));
    network[6] = packet.extension.empty() ? std::byte{packet.protocol} : std::byte{60};
    network = network + packet.extension;
  } else {
    network = hex("4500 0000 7fff 4000 40 00 0000 0a000001 0a000002");
    poke(&network[2], be16(static_cast<uint16_t>(length + 20)));
    network[9] = std::byte{packet.protocol};
    poke(&network[10], be16(static_cast<uint16_t>(~naive_sum(network))));
  }
  Bytes tags;
  for (unsigned i = 0; i < packet.tags; ++i) tags = tags + hex("8100 0064");
  Built built{.frame = mac_bytes(station_mac(1)) + mac_bytes(station_mac(2)) + tags +
                       hex(packet.ipv6 ? "86dd" : "0800") + network + transport};
  const auto place = find_ip(built.frame).value();
  built.offload = {.flags = 1,
                   .csum_start = static_cast<uint16_t>(place.transport),
                   .csum_offset = static_cast<uint16_t>(tcp ? 16 : 6)};
  const uint16_t sum = naive_sum({}, pseudo_sum(built.frame, place));
  poke(&built.frame[place.transport + built.offload.csum_offset], be16(sum));
  return built;
}

inline Bytes flat(const Frame& frame) {
  Bytes bytes(frame.head.begin(), frame.head.end());
  for (const iovec& piece : frame.pieces) {
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    bytes.insert(bytes.end(), from, from + piece.iov_len);
  }
  bytes.resize(frame.length);
  return bytes;
}

}  // namespace ringway::port::test
