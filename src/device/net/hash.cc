#include "ringway/device/net/hash.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace ringway::net {
namespace {

constexpr size_t ethernet_header = 14;
constexpr size_t tag_bytes = 4;
constexpr size_t ipv6_header = 40;
constexpr size_t port_bytes = 4;  // of source and destination
constexpr uint8_t tcp = 6;
constexpr uint8_t udp = 17;

uint16_t be16(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint16_t>(std::to_integer<unsigned>(bytes[at]) << 8U |
                               std::to_integer<unsigned>(bytes[at + 1]));
}

// What of a frame is hashed.
struct Flow {
  std::span<const std::byte> addresses;  // source, destination
  std::span<const std::byte> ports;      // empty: none, or of a fragment
  uint8_t protocol = 0;
  bool v6 = false;
};

Flow flow_of_ipv4(std::span<const std::byte> packet) {
  Flow flow;
  if (packet.size() < 20) return flow;
  const size_t header = (std::to_integer<size_t>(packet[0]) & 0xfU) * 4;
  if (header < 20) return flow;
  flow.addresses = packet.subspan(12, 8);
  flow.protocol = std::to_integer<uint8_t>(packet[9]);
  const bool fragment = (be16(packet, 6) & 0x3fffU) != 0;
  if (!fragment && packet.size() >= header + port_bytes) flow.ports = packet.subspan(header, port_bytes);
  return flow;
}

Flow flow_of_ipv6(std::span<const std::byte> packet) {
  Flow flow;
  if (packet.size() < ipv6_header) return flow;
  flow.v6 = true;
  flow.addresses = packet.subspan(8, 32);
  flow.protocol = std::to_integer<uint8_t>(packet[6]);
  if (packet.size() >= ipv6_header + port_bytes) flow.ports = packet.subspan(ipv6_header, port_bytes);
  return flow;
}

Flow flow_of(std::span<const std::byte> frame) {
  size_t at = ethernet_header - 2;
  for (int tags = 0; frame.size() >= at + 2; ++tags) {
    const uint16_t type = be16(frame, at);
    if (type == 0x0800) return flow_of_ipv4(frame.subspan(at + 2));
    if (type == 0x86dd) return flow_of_ipv6(frame.subspan(at + 2));
    if ((type != 0x8100 && type != 0x88a8) || tags == 2) break;
    at += tag_bytes;
  }
  return {};
}

}  // namespace

Toeplitz::Toeplitz(const HashKey& key) : key_(key) {
  const auto key_bit = [&](size_t number) {
    return std::to_integer<uint32_t>(key[number / 8]) >> (7 - number % 8) & 1U;
  };
  // The 32 bits of the key from each bit of the input on.
  std::array<uint32_t, 8 * max_input> windows{};
  for (size_t bit = 0; bit < windows.size(); ++bit) {
    for (size_t i = 0; i < 32; ++i) windows[bit] = windows[bit] << 1U | key_bit(bit + i);
  }
  for (size_t half = 0; half < contributions_.size(); ++half) {
    for (size_t value = 0; value < 16; ++value) {
      for (size_t bit = 0; bit < 4; ++bit) {
        if ((value >> (3 - bit) & 1U) != 0) contributions_[half][value] ^= windows[4 * half + bit];
      }
    }
  }
}

uint32_t Toeplitz::operator()(std::span<const std::byte> input) const {
  assert(input.size() <= max_input);
  uint32_t value = 0;
  for (size_t i = 0; i < input.size(); ++i) {
    const auto byte = std::to_integer<size_t>(input[i]);
    value ^= contributions_[2 * i][byte >> 4U] ^ contributions_[2 * i + 1][byte & 0xfU];
  }
  return value;
}

HashResult hash_of(std::span<const std::byte> head, uint32_t types, const Toeplitz& hash) {
  const Flow flow = flow_of(head);
  if (flow.addresses.empty()) return {};
  const unsigned version = flow.v6 ? 3 : 0;  // of IPv4, TCPv4, UDPv4, IPv6, ...
  std::array<std::byte, 36> input{};
  std::ranges::copy(flow.addresses, input.begin());
  const unsigned upper = flow.protocol == tcp ? 1 : flow.protocol == udp ? 2 : 0;
  if (upper > 0 && !flow.ports.empty() && (types >> (version + upper) & 1U) != 0) {
    std::ranges::copy(flow.ports, input.begin() + static_cast<ptrdiff_t>(flow.addresses.size()));
    return {hash(std::span(input).first(flow.addresses.size() + port_bytes)),
            static_cast<HashReport>(version + upper + 1)};
  }
  if ((types >> version & 1U) == 0) return {};
  return {hash(std::span(input).first(flow.addresses.size())), static_cast<HashReport>(version + 1)};
}

}  // namespace ringway::net
