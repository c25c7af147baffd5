// The hash against the numbers that Microsoft publishes for it ("Verifying the RSS Hash Calculation").
#include "ringway/device/net/hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace ringway::net {
namespace {

constexpr unsigned char published_key[] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                           0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                           0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                           0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

Toeplitz published() {
  HashKey key;
  std::ranges::transform(published_key, key.begin(), [](unsigned char byte) { return std::byte{byte}; });
  return Toeplitz(key);
}

// An Ethernet frame with this behind the addresses.
std::vector<std::byte> frame(std::initializer_list<int> behind) {
  std::vector<std::byte> bytes(12);
  for (const int byte : behind) bytes.push_back(static_cast<std::byte>(byte));
  return bytes;
}

// TCP from 66.9.149.187:2794 to 161.142.100.80:1766, the first row of the table.
std::vector<std::byte> tcp4(int fragment = 0) {
  return frame({8,  0, 0x45, 0,   0,   40,  0,   0,  fragment,  0,          64,        6,         0, 0,
                66, 9, 149,  187, 161, 142, 100, 80, 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255});
}

TEST(NetHash, it_is_what_was_published_for_IPv4) {
  const HashResult ports = hash_of(tcp4(), supported_hash_types, published());
  EXPECT_EQ(ports.value, 0x51ccc178U);
  EXPECT_EQ(ports.report, VIRTIO_NET_HASH_REPORT_TCPv4);
  const HashResult addresses = hash_of(tcp4(), VIRTIO_NET_HASH_TYPE_IPv4, published());
  EXPECT_EQ(addresses.value, 0x323e8fc2U);
  EXPECT_EQ(addresses.report, VIRTIO_NET_HASH_REPORT_IPv4);
}

TEST(NetHash, it_is_what_was_published_for_IPv6) {
  // From 3ffe:2501:200:1fff::7, port 2794, to 3ffe:2501:200:3::1, port 1766.
  const auto packet =
      frame({0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64, 0x3f,      0xfe,       0x25,      0x01,      0x02, 0x00,
             0x1f, 0xff, 0,    0, 0, 0, 0, 0,  0, 7,  0x3f,      0xfe,       0x25,      0x01,      0x02, 0x00,
             0x00, 0x03, 0,    0, 0, 0, 0, 0,  0, 1,  2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255});
  EXPECT_EQ(hash_of(packet, supported_hash_types, published()).value, 0x40207d3dU);
  const HashResult addresses = hash_of(packet, VIRTIO_NET_HASH_TYPE_IPv6, published());
  EXPECT_EQ(addresses.value, 0x2cc18cd5U);
  EXPECT_EQ(addresses.report, VIRTIO_NET_HASH_REPORT_IPv6);
}

TEST(NetHash, a_tag_is_passed_over_and_a_fragment_has_no_ports) {
  auto tagged = tcp4();
  const std::vector<std::byte> tag{std::byte{0x81}, std::byte{0}, std::byte{0}, std::byte{5}};
  tagged.insert(tagged.begin() + 12, tag.begin(), tag.end());
  EXPECT_EQ(hash_of(tagged, supported_hash_types, published()).value, 0x51ccc178U);
  EXPECT_EQ(hash_of(tcp4(0x20), supported_hash_types, published()).report, VIRTIO_NET_HASH_REPORT_IPv4);
  EXPECT_EQ(hash_of(tcp4(0x20), VIRTIO_NET_HASH_TYPE_TCPv4, published()).report, VIRTIO_NET_HASH_REPORT_NONE);
}

TEST(NetHash, a_frame_may_end_anywhere) {
  const auto whole = tcp4();
  for (size_t length = 0; length < whole.size(); ++length) {
    const auto result = hash_of(std::span(whole).first(length), supported_hash_types, published());
    EXPECT_EQ(result.report, length < 34 ? VIRTIO_NET_HASH_REPORT_NONE : VIRTIO_NET_HASH_REPORT_IPv4)
        << length;
  }
  auto header = whole;
  header[14] = std::byte{0x4f};  // 60 bytes of header
  EXPECT_EQ(hash_of(header, supported_hash_types, published()).report, VIRTIO_NET_HASH_REPORT_IPv4);
  header[14] = std::byte{0x41};  // shorter than it can be
  EXPECT_EQ(hash_of(header, supported_hash_types, published()).report, VIRTIO_NET_HASH_REPORT_NONE);
}

}  // namespace
}  // namespace ringway::net
