#include "ringway/tools/net_frames.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>

#include "ringway/memory/shared_bytes.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {
namespace {

using be16 = Fixed<uint16_t, std::endian::big>;
using be32 = Fixed<uint32_t, std::endian::big>;

constexpr uint16_t ethertype_ipv4 = 0x0800;
constexpr uint16_t ethertype_local = 0x88b5;  // IEEE 802 "Local Experimental Ethertype 1"
constexpr uint8_t protocol_tcp = 6;
constexpr uint8_t protocol_udp = 17;
// RFC 2544 has these addresses for measurements.
constexpr uint32_t source_address = 198U << 24 | 18U << 16 | 1;
constexpr uint32_t destination_address = 198U << 24 | 19U << 16 | 1;
constexpr uint16_t first_port = 49152;
constexpr uint16_t discard_port = 9;

struct Ethernet {
  net::Mac destination;
  net::Mac source;
  be16 type;
};
static_assert(sizeof(Ethernet) == ethernet_bytes);

struct Ipv4 {
  uint8_t version_and_length = 0x45;
  uint8_t service = 0;
  be16 total_length;
  be16 id;
  be16 fragment = 0x4000;  // not to be fragmented
  uint8_t time_to_live = 64;
  uint8_t protocol = protocol_udp;
  be16 checksum;
  be32 source = source_address;
  be32 destination = destination_address;
};
static_assert(sizeof(Ipv4) == 20);

struct Udp {
  be16 source;
  be16 destination = discard_port;
  be16 length;
  be16 checksum;  // 0: none
};
static_assert(sizeof(Udp) == 8);

struct Tcp {
  be16 source;
  be16 destination = discard_port;
  be32 sequence;
  be32 acknowledgement;
  uint8_t data_offset = 5 << 4;
  uint8_t flags = 0x10;  // ACK
  be16 window = 0xffff;
  be16 checksum;
  be16 urgent;
};
static_assert(sizeof(Tcp) == 20);

constexpr size_t udp_at = sizeof(Ethernet) + sizeof(Ipv4);
static_assert(udp_at == flow_at);
constexpr size_t tcp_checksum_at = udp_at + offsetof(Tcp, checksum);
constexpr size_t tcp_end = udp_at + sizeof(Tcp);

struct WireTag {
  le64 run;
  le64 sequence;
  le16 flow;
};
constexpr size_t tag_bytes = 18;
static_assert(udp_at + sizeof(Udp) + tag_bytes <= least_frame);

template <class T>
size_t put(std::span<std::byte> to, size_t at, const T& value, size_t bytes = sizeof(T)) {
  std::memcpy(to.data() + at, &value, bytes);
  return at + bytes;
}

// RFC 1071, not yet complemented.
uint32_t sum(std::span<const std::byte> bytes) {
  uint32_t total = 0;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    total += std::to_integer<uint32_t>(bytes[i]) << 8 | std::to_integer<uint32_t>(bytes[i + 1]);
  }
  return total;
}

uint16_t fold(uint32_t total) {
  while (total > 0xffff) total = (total & 0xffff) + (total >> 16);
  return static_cast<uint16_t>(total);
}

// SplitMix64.
uint64_t next_random(uint64_t& state) {
  state += 0x9e37'79b9'7f4a'7c15;
  uint64_t value = state;
  value = (value ^ value >> 30) * 0xbf58'476d'1ce4'e5b9;
  value = (value ^ value >> 27) * 0x94d0'49bb'1331'11eb;
  return value ^ value >> 31;
}

void fill_random(std::span<std::byte> to, uint64_t state) {
  for (size_t at = 0; at < to.size(); at += sizeof(uint64_t)) {
    const uint64_t value = next_random(state);
    std::memcpy(to.data() + at, &value, std::min(sizeof value, to.size() - at));
  }
}

size_t payload_at(std::span<const std::byte> frame) {
  const bool is_tcp =
      std::to_integer<uint8_t>(frame[sizeof(Ethernet) + offsetof(Ipv4, protocol)]) == protocol_tcp;
  return is_tcp ? tcp_end : udp_at + sizeof(Udp);
}

}  // namespace

// ---- sizes

std::expected<FrameSizes, std::string> FrameSizes::parse(std::string_view text) {
  if (text == "imix") return FrameSizes({64, 576, 64, 64, 576, 64, 1500, 64, 576, 64, 576, 64});
  const auto bytes = parse_size(text);
  if (!bytes) return std::unexpected(bytes.error());
  if (*bytes < least_frame || *bytes > most_frame) {
    return std::unexpected("--size must be from 60 to 65536 bytes, or imix");
  }
  return all(static_cast<uint32_t>(*bytes));
}

uint32_t FrameSizes::largest() const { return *std::max_element(sizes_.begin(), sizes_.end()); }
uint32_t FrameSizes::smallest() const { return *std::min_element(sizes_.begin(), sizes_.end()); }

// ---- flows

Flow::Flow(const FlowOptions& options) : options_(options) {}

uint32_t Flow::write(uint64_t sequence, std::span<std::byte> to) const {
  const uint32_t length = bytes(sequence);
  assert(to.size() >= net_header_bytes + length);
  const port::Header header = this->header(length);
  memory::copy_in(to.data(), &header, net_header_bytes);
  write_frame(sequence, to.subspan(net_header_bytes, length));
  return net_header_bytes + length;
}

port::Header Flow::header(uint32_t bytes) const {
  port::Header header;
  if (!is_segmented(bytes)) return header;
  header.flags = port::VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.gso_type = port::VIRTIO_NET_HDR_GSO_TCPV4;
  header.hdr_len = static_cast<uint16_t>(tcp_end);
  header.gso_size = static_cast<uint16_t>(options_.mtu - sizeof(Ipv4) - sizeof(Tcp));
  header.csum_start = static_cast<uint16_t>(udp_at);
  header.csum_offset = offsetof(Tcp, checksum);
  return header;
}

void Flow::write_frame(uint64_t sequence, std::span<std::byte> frame) const {
  const size_t payload = write_headers(frame);
  const WireTag tag{.run = options_.run, .sequence = sequence, .flow = options_.flow};
  const size_t rest = put(frame, payload, tag, tag_bytes);
  fill_random(frame.subspan(rest), options_.run ^ uint64_t{options_.flow} << 48 ^ sequence);
}

size_t Flow::write_headers(std::span<std::byte> frame) const {
  const bool is_tcp = is_segmented(static_cast<uint32_t>(frame.size()));
  put(frame, 0,
      Ethernet{.destination = options_.destination, .source = options_.source, .type = ethertype_ipv4});
  Ipv4 ip;
  ip.total_length = static_cast<uint16_t>(frame.size() - sizeof(Ethernet));
  ip.protocol = is_tcp ? protocol_tcp : protocol_udp;
  ip.checksum = static_cast<uint16_t>(~fold(sum(std::as_bytes(std::span(&ip, 1)))));
  put(frame, sizeof(Ethernet), ip);
  const auto port = static_cast<uint16_t>(first_port + options_.flow);
  const auto rest = static_cast<uint16_t>(frame.size() - udp_at);
  if (!is_tcp) return put(frame, udp_at, Udp{.source = port, .length = rest, .checksum = 0});
  // What the device is to complete: the sum of the pseudo-header.
  const std::span addresses(frame.data() + sizeof(Ethernet) + offsetof(Ipv4, source), 2 * sizeof(be32));
  Tcp tcp;
  tcp.source = port;
  tcp.checksum = fold(sum(addresses) + protocol_tcp + rest);
  return put(frame, udp_at, tcp);
}

bool Flow::matches(const FrameTag& tag, std::span<const std::byte> frame) const {
  if (frame.size() != bytes(tag.sequence)) return false;
  thread_local std::vector<std::byte> expected;
  expected.resize(frame.size());
  write_frame(tag.sequence, expected);
  if (is_segmented(static_cast<uint32_t>(frame.size()))) {
    std::copy_n(frame.begin() + tcp_checksum_at, sizeof(be16), expected.begin() + tcp_checksum_at);
  }
  return std::memcmp(expected.data(), frame.data(), frame.size()) == 0;
}

std::optional<FrameTag> read_tag(std::span<const std::byte> frame) {
  if (frame.size() < least_frame) return std::nullopt;
  const size_t at = payload_at(frame);
  WireTag tag;
  if (frame.size() < at + tag_bytes) return std::nullopt;
  std::memcpy(static_cast<void*>(&tag), frame.data() + at, tag_bytes);
  return FrameTag{.run = tag.run, .sequence = tag.sequence, .flow = tag.flow};
}

uint16_t flow_of_port(uint16_t big_endian_port) {
  return static_cast<uint16_t>(std::bit_cast<be16>(big_endian_port) - first_port);
}

void write_greeting(const net::Mac& source, std::span<std::byte> to) {
  std::array<std::byte, greeting_bytes> bytes{};
  Ethernet ethernet{.destination = {}, .source = source, .type = ethertype_local};
  ethernet.destination.fill(std::byte{0xff});
  put(bytes, net_header_bytes, ethernet);
  memory::copy_in(to.data(), bytes.data(), bytes.size());
}

}  // namespace ringway::tools
