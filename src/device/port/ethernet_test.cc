#include "ringway/device/port/ethernet.h"

#include <gtest/gtest.h>

#include "ringway/device/port/frames_test.h"

namespace ringway::port {
namespace {

using test::build;
using test::operator+;  // NOLINT(misc-unused-using-decls): it is used below, by its sign

TEST(Ethernet, ip_is_found_behind_up_to_two_tags) {
  for (const unsigned tags : {0U, 1U, 2U}) {
    const auto place = find_ip(build({.tags = tags}).frame);
    ASSERT_TRUE(place);
    EXPECT_EQ(place->network, 14 + 4 * tags);
    EXPECT_EQ(place->transport, 34 + 4 * tags);
    EXPECT_EQ(place->protocol, protocol_tcp);
  }
  auto three = build({.tags = 2}).frame;
  const auto tag = test::hex("8100 0064");
  three.insert(three.begin() + 12, tag.begin(), tag.end());
  EXPECT_FALSE(find_ip(three));
}

TEST(Ethernet, a_frame_cut_anywhere_is_looked_at_no_further) {
  const auto frame = build({.ipv6 = true, .extension = test::hex("06 01") + test::Bytes(14)}).frame;
  for (size_t size = 0; size < 54 + 16; ++size) {
    const test::Bytes part(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(find_ip(part)) << size;
    EXPECT_EQ(flow_hash(part), flow_hash(test::Bytes(part))) << "it read beyond";
  }
  EXPECT_TRUE(find_ip(frame));
}

TEST(Ethernet, a_flow_keeps_its_hash_and_others_spread) {
  auto one = build({.payload = 10}).frame;
  const uint32_t hash = flow_hash(one);
  one.back() = std::byte{99};
  EXPECT_EQ(flow_hash(one), hash);
  std::array<unsigned, 4> queues{};
  for (unsigned port = 0; port < 1000; ++port) {
    poke(&one[34], be16(static_cast<uint16_t>(port)));
    ++queues[flow_hash(one) % 4];
  }
  for (const unsigned count : queues) EXPECT_GT(count, 150U);
}

TEST(Ethernet, all_fragments_of_a_datagram_hash_alike_as_far_as_they_name_it) {
  auto first = build({.protocol = protocol_udp}).frame;
  first[20] = std::byte{0x20};  // more follow
  auto other_ports = first;
  other_ports[35] ^= std::byte{1};
  EXPECT_EQ(flow_hash(first), flow_hash(other_ports));
}

}  // namespace
}  // namespace ringway::port
