#include "ringway/device/port/offload.h"

#include <algorithm>

#include "ringway/device/port/virtio_net.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::port {
namespace {

constexpr std::byte tcp_fin{0x01};
constexpr std::byte tcp_psh{0x08};
constexpr std::byte tcp_cwr{0x80};
constexpr size_t tcp_header = 20;
constexpr size_t udp_header = 8;

// Ones' complement sum of 16-bit words (RFC 1071), not folded yet, in the byte order of memory. Only the last
// of several parts may have an odd number of bytes.
uint64_t sum_of(std::span<const std::byte> bytes, uint64_t sum = 0) {
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 4; at += 4, left -= 4) sum += peek<uint32_t>(at);
  if (left >= 2) {
    sum += peek<uint16_t>(at);
    at += 2;
    left -= 2;
  }
  if (left == 1) {
    uint16_t last = 0;
    std::memcpy(&last, at, 1);
    sum += last;
  }
  return sum;
}

uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffff'ffff) + (sum >> 32);
  sum = (sum & 0xffff'ffff) + (sum >> 32);
  auto half = static_cast<uint32_t>((sum & 0xffff) + (sum >> 16));
  half = (half & 0xffff) + (half >> 16);
  half = (half & 0xffff) + (half >> 16);
  return static_cast<uint16_t>(half);
}

// 0 would mean "no checksum" in UDP, and for TCP both zeros are the same.
uint16_t never_zero(uint16_t checksum) { return checksum == 0 ? 0xffff : checksum; }

Skills skills_of(uint64_t features, std::initializer_list<std::pair<unsigned, Skills>> table) {
  Skills skills = 0;
  for (const auto& [number, skill] : table) {
    if ((features & bit(number)) != 0) skills |= skill;
  }
  return skills;
}

struct Kind {
  uint8_t protocol = 0;
  bool ipv4 = false;
  bool ipv6 = false;
};

std::optional<Kind> kind_of(uint8_t gso_type) {
  switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return Kind{.protocol = protocol_tcp, .ipv4 = true};
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return Kind{.protocol = protocol_tcp, .ipv6 = true};
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return Kind{.protocol = protocol_udp, .ipv4 = true, .ipv6 = true};
    default:
      return {};
  }
}

// Where the payload begins. Nothing if the header of the transport is not all there.
std::optional<size_t> end_of_headers(std::span<const std::byte> frame, const IpPlace& place) {
  if (place.protocol == protocol_udp) {
    if (frame.size() < place.transport + udp_header) return {};
    return place.transport + udp_header;
  }
  if (frame.size() < place.transport + tcp_header) return {};
  const size_t length = std::to_integer<size_t>(frame[place.transport + 12] >> 4) * 4;
  if (length < tcp_header || frame.size() < place.transport + length) return {};
  return place.transport + length;
}

}  // namespace

Skills driver_skills(uint64_t features) {
  return skills_of(features, {{VIRTIO_NET_F_GUEST_CSUM, skill_checksum},
                              {VIRTIO_NET_F_GUEST_TSO4, skill_tso4},
                              {VIRTIO_NET_F_GUEST_TSO6, skill_tso6},
                              {VIRTIO_NET_F_GUEST_ECN, skill_ecn},
                              {VIRTIO_NET_F_GUEST_UFO, skill_ufo},
                              {VIRTIO_NET_F_GUEST_USO4, skill_uso4},
                              {VIRTIO_NET_F_GUEST_USO6, skill_uso6}});
}

Skills port_skills(uint64_t takes) {
  return skills_of(takes, {{VIRTIO_NET_F_CSUM, skill_checksum},
                           {VIRTIO_NET_F_HOST_TSO4, skill_tso4},
                           {VIRTIO_NET_F_HOST_TSO6, skill_tso6},
                           {VIRTIO_NET_F_HOST_ECN, skill_ecn},
                           {VIRTIO_NET_F_HOST_UFO, skill_ufo},
                           {VIRTIO_NET_F_HOST_USO, skill_uso4 | skill_uso6}});
}

Skills skills_needed(const Offload& offload) {
  Skills needed = (offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 ? skill_checksum : 0;
  if (offload.gso_type == VIRTIO_NET_HDR_GSO_NONE) return needed;
  if ((offload.gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0) needed |= skill_ecn;
  switch (offload.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return needed | skill_tso4;
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return needed | skill_tso6;
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return needed | skill_uso4 | skill_uso6;
    default:
      return needed | skill_ufo;
  }
}

void copy_frame(const Frame& frame, std::byte* to) {
  size_t left = frame.length;
  const auto copy = [&](const void* from, size_t length) {
    length = std::min(length, left);
    if (length == 0) return;
    memory::copy_out(to, from, length);
    to += length;
    left -= length;
  };
  copy(frame.head.data(), frame.head.size());
  for (const iovec& piece : frame.pieces) copy(piece.iov_base, piece.iov_len);
}

bool complete_checksum(std::span<std::byte> frame, Offload& offload) {
  if ((offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0) return true;
  const size_t start = offload.csum_start;
  const size_t at = start + offload.csum_offset;
  if (start >= frame.size() || at + 2 > frame.size()) return false;
  // The driver has put the sum of the pseudo header where the checksum goes.
  const uint16_t sum = fold(sum_of(frame.subspan(start)));
  poke(&frame[at], never_zero(static_cast<uint16_t>(~sum)));
  offload = {};
  return true;
}

std::optional<Segmenter> Segmenter::open(std::span<const std::byte> frame, const Offload& offload) {
  const auto kind = kind_of(offload.gso_type);
  const auto place = find_ip(frame);
  if (!kind || !place || place->protocol != kind->protocol) return {};
  if (!(place->is_ipv6 ? kind->ipv6 : kind->ipv4)) return {};
  const bool needs_checksum = (offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
  if (needs_checksum && offload.csum_start != place->transport) return {};
  const auto headers = end_of_headers(frame, *place);
  if (!headers || *headers > max_headers || *headers == frame.size() || offload.gso_size == 0) return {};
  Segmenter segmenter;
  segmenter.place_ = *place;
  segmenter.is_tcp_ = place->protocol == protocol_tcp;
  segmenter.size_ = offload.gso_size;
  segmenter.headers_ = *headers;
  segmenter.payload_ = frame.subspan(*headers);
  if (segmenter.count() > max_segments) return {};
  std::ranges::copy(frame.first(*headers), segmenter.head_.begin());
  segmenter.first_id_ = peek<be16>(&frame[place->network + 4]);
  if (segmenter.is_tcp_) {
    segmenter.first_sequence_ = peek<be32>(&frame[place->transport + 4]);
    segmenter.flags_ = frame[place->transport + 13];
  }
  return segmenter;
}

bool Segmenter::next(Frame& segment) {
  if (sent_ == payload_.size()) return false;
  const auto payload = payload_.subspan(sent_, std::min(size_, payload_.size() - sent_));
  write_headers(payload, sent_ + payload.size() == payload_.size());
  sent_ += payload.size();
  ++number_;
  pieces_[0] = {.iov_base = head_.data(), .iov_len = headers_};
  pieces_[1] = {.iov_base = const_cast<std::byte*>(payload.data()), .iov_len = payload.size()};
  segment.offload = {};
  segment.length = static_cast<uint32_t>(headers_ + payload.size());
  segment.pieces = pieces_;
  return true;
}

void Segmenter::write_headers(std::span<const std::byte> payload, bool is_last) {
  std::byte* const transport = &head_[place_.transport];
  const size_t length = headers_ - place_.transport + payload.size();  // of header and payload
  write_network(length);
  if (is_tcp_) {
    write_tcp(is_last);
  } else {
    poke(transport + 4, be16(static_cast<uint16_t>(length)));
  }
  std::byte* const checksum = transport + (is_tcp_ ? 16 : 6);
  poke(checksum, uint16_t{0});
  const std::span head(head_);
  const auto addresses =
      place_.is_ipv6 ? head.subspan(place_.network + 8, 32) : head.subspan(place_.network + 12, 8);
  uint64_t sum = sum_of(addresses);
  sum += std::byteswap(static_cast<uint16_t>(length)) + std::byteswap(uint16_t{place_.protocol});
  sum = sum_of(head.subspan(place_.transport, headers_ - place_.transport), sum);
  poke(checksum, never_zero(static_cast<uint16_t>(~fold(sum_of(payload, sum)))));
}

void Segmenter::write_network(size_t length) {
  std::byte* const network = &head_[place_.network];
  if (place_.is_ipv6) {
    const size_t extensions = place_.transport - place_.network - 40;
    poke(network + 4, be16(static_cast<uint16_t>(extensions + length)));
    return;
  }
  const size_t header = place_.transport - place_.network;
  poke(network + 2, be16(static_cast<uint16_t>(header + length)));
  poke(network + 4, be16(static_cast<uint16_t>(first_id_ + number_)));
  poke(network + 10, uint16_t{0});
  poke(network + 10, static_cast<uint16_t>(~fold(sum_of({network, header}))));
}

// RFC 9293, and RFC 3168 for CWR: once is enough.
void Segmenter::write_tcp(bool is_last) {
  std::byte* const transport = &head_[place_.transport];
  poke(transport + 4, be32(first_sequence_ + static_cast<uint32_t>(sent_)));
  std::byte flags = flags_;
  if (!is_last) flags &= ~(tcp_fin | tcp_psh);
  if (number_ > 0) flags &= ~tcp_cwr;
  transport[13] = flags;
}

}  // namespace ringway::port
