// Checksums and segments against known frames, and against sums made byte by byte.
#include "ringway/device/port/offload.h"

#include <gtest/gtest.h>

#include "ringway/device/port/frames_test.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

using test::build;
using test::operator+;  // NOLINT(misc-unused-using-decls): it is used below, by its sign
using test::Bytes;
using test::hex;
using test::Packet;

std::vector<Bytes> cut(const Bytes& frame, const Offload& offload) {
  std::vector<Bytes> segments;
  auto segmenter = Segmenter::open(frame, offload);
  if (!segmenter) return segments;
  Frame segment;
  while (segmenter->next(segment)) segments.push_back(test::flat(segment));
  return segments;
}

test::Built long_tcp(const Packet& packet, uint16_t gso_size) {
  test::Built built = build(packet);
  built.offload.gso_type = packet.ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
  built.offload.gso_size = gso_size;
  return built;
}

// A DNS question as a driver leaves it, and its checksum as Python's integers add it up.
TEST(Offload, a_known_datagram_gets_its_checksum) {
  Bytes frame =
      hex("020000000001 020000000002 0800"
          "4500003c 00004000 4011 26af 0a000001 0a000002"
          "c8d2 0035 0028 143c"
          "aaaa 0100 0001 0000 0000 0000 07 6578616d706c65 03 636f6d 00 0001 0001");
  frame.resize(14 + 60);
  Offload offload{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
  ASSERT_TRUE(complete_checksum(frame, offload));
  EXPECT_EQ(offload.flags, 0);
  EXPECT_EQ(peek<be16>(&frame[40]), 0xa87b);
  EXPECT_TRUE(test::checksums_are_right(frame));
}

TEST(Offload, checksums_of_all_lengths_are_right) {
  for (const bool ipv6 : {false, true}) {
    for (const uint8_t protocol : {protocol_tcp, protocol_udp}) {
      for (size_t payload = 0; payload < 70; ++payload) {
        auto built = build({.ipv6 = ipv6, .protocol = protocol, .payload = payload});
        ASSERT_TRUE(complete_checksum(built.frame, built.offload));
        EXPECT_TRUE(test::checksums_are_right(built.frame)) << payload;
      }
    }
  }
}

TEST(Offload, a_checksum_of_zero_becomes_all_ones) {
  auto built = build({.protocol = protocol_udp, .payload = 2});
  const size_t payload = built.frame.size() - 2;
  poke(&built.frame[payload], uint16_t{0});
  const uint16_t sum = test::naive_sum(std::span(built.frame).subspan(built.offload.csum_start));
  poke(&built.frame[payload], be16(static_cast<uint16_t>(~sum)));
  ASSERT_TRUE(complete_checksum(built.frame, built.offload));
  EXPECT_EQ(peek<be16>(&built.frame[built.frame.size() - 4]), 0xffff);
}

TEST(Offload, a_checksum_outside_the_frame_is_refused) {
  auto built = build({});
  const auto refused = [&](size_t start, size_t offset) {
    Offload offload{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                    .csum_start = static_cast<uint16_t>(start),
                    .csum_offset = static_cast<uint16_t>(offset)};
    return !complete_checksum(built.frame, offload);
  };
  const size_t size = built.frame.size();
  EXPECT_TRUE(refused(size, 0));
  EXPECT_TRUE(refused(size - 1, 0));
  EXPECT_FALSE(refused(size - 2, 0));
  EXPECT_TRUE(refused(0, size - 1));
  EXPECT_TRUE(refused(65535, 65535));
}

TEST(Offload, tcp_segments_carry_all_bytes_in_order_with_right_headers) {
  for (const bool ipv6 : {false, true}) {
    for (const unsigned tags : {0U, 1U, 2U}) {
      constexpr uint8_t cwr_psh_ack_fin = 0x99;
      const auto built =
          long_tcp({.ipv6 = ipv6, .payload = 4001, .tcp_flags = cwr_psh_ack_fin, .tags = tags}, 1000);
      const auto place = find_ip(built.frame).value();
      const size_t headers = place.transport + 32;
      const auto segments = cut(built.frame, built.offload);
      ASSERT_EQ(segments.size(), 5U);
      Bytes payload;
      for (size_t i = 0; i < segments.size(); ++i) {
        const Bytes& segment = segments[i];
        EXPECT_TRUE(test::checksums_are_right(segment)) << i;
        EXPECT_EQ(segment.size(), headers + (i < 4 ? 1000 : 1));
        EXPECT_EQ(peek<be32>(&segment[place.transport + 4]), 0x01020304 + i * 1000);
        const uint8_t flags = std::to_integer<uint8_t>(segment[place.transport + 13]);
        EXPECT_EQ(flags, 0x10 | (i == 0 ? 0x80 : 0) | (i == 4 ? 0x09 : 0)) << i;
        if (ipv6) {
          EXPECT_EQ(peek<be16>(&segment[place.network + 4]), segment.size() - place.network - 40);
        } else {
          EXPECT_EQ(peek<be16>(&segment[place.network + 2]), segment.size() - place.network);
          EXPECT_EQ(peek<be16>(&segment[place.network + 4]), 0x7fff + i);
        }
        payload.insert(payload.end(), segment.begin() + static_cast<ptrdiff_t>(headers), segment.end());
      }
      EXPECT_TRUE(std::ranges::equal(payload, std::span(built.frame).subspan(headers)));
    }
  }
}

TEST(Offload, udp_is_cut_into_datagrams) {
  for (const bool ipv6 : {false, true}) {
    auto built = build({.ipv6 = ipv6, .protocol = protocol_udp, .payload = 3000});
    built.offload.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
    built.offload.gso_size = 1400;
    const auto segments = cut(built.frame, built.offload);
    ASSERT_EQ(segments.size(), 3U);
    for (const Bytes& segment : segments) {
      EXPECT_TRUE(test::checksums_are_right(segment));
      const auto place = find_ip(segment).value();
      EXPECT_EQ(peek<be16>(&segment[place.transport + 4]), segment.size() - place.transport);
    }
  }
}

TEST(Offload, extension_headers_go_with_every_segment) {
  const auto built = long_tcp({.ipv6 = true, .payload = 300, .extension = hex("06 01") + Bytes(14)}, 100);
  const auto segments = cut(built.frame, built.offload);
  ASSERT_EQ(segments.size(), 3U);
  for (const Bytes& segment : segments) EXPECT_TRUE(test::checksums_are_right(segment));
}

TEST(Offload, a_frame_that_is_not_what_its_offload_says_is_not_cut) {
  const auto good = long_tcp({.payload = 3000}, 1000);
  const auto is_cut = [&](auto change) {
    auto built = good;
    change(built);
    return Segmenter::open(built.frame, built.offload).has_value();
  };
  EXPECT_TRUE(is_cut([](auto&) {}));
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.gso_size = 0; }));
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.gso_size = 5; })) << "600 segments";
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.gso_type = VIRTIO_NET_HDR_GSO_TCPV6; }));
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4; }));
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.gso_type = VIRTIO_NET_HDR_GSO_UDP; })) << "fragments";
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.gso_type = 77; }));
  EXPECT_FALSE(is_cut([](auto& b) { b.offload.csum_start += 2; }));
  EXPECT_FALSE(is_cut([](auto& b) { b.frame[12] = std::byte{9}; })) << "no IP";
  EXPECT_FALSE(is_cut([](auto& b) { b.frame[20] = std::byte{0x20}, b.frame[21] = std::byte{1}; }))
      << "a fragment";
  EXPECT_FALSE(is_cut([](auto& b) { b.frame[34 + 12] = std::byte{0x40}; })) << "a TCP header of 16 bytes";
  for (size_t size = 0; size <= 34 + 32; ++size) {
    EXPECT_FALSE(is_cut([&](auto& b) { b.frame.resize(size); })) << size;
  }
}

TEST(Offload, skills_are_those_of_the_features) {
  const Offload ecn{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
                    .gso_size = 1000};
  EXPECT_EQ(skills_needed(ecn), skill_checksum | skill_tso4 | skill_ecn);
  EXPECT_EQ(skills_needed({}), 0);
  EXPECT_EQ(driver_skills(bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_USO4)),
            skill_checksum | skill_uso4);
  EXPECT_EQ(port_skills(bit(VIRTIO_NET_F_HOST_USO) | bit(VIRTIO_NET_F_HOST_TSO6)),
            skill_uso4 | skill_uso6 | skill_tso6);
}

}  // namespace
}  // namespace ringway::port
