#include "ringway/tools/proxy_mask.h"

#include <gmock/gmock.h>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using ::testing::HasSubstr;
using vhost::bit;

TEST(ProxyMask, features_are_named_as_in_the_specification) {
  EXPECT_EQ(parse_features("RING_PACKED", nullptr), bit(34));
  EXPECT_EQ(parse_features("VIRTIO_F_RING_PACKED,event_idx", nullptr), bit(34) | bit(29));
  EXPECT_EQ(parse_features("VIRTIO_BLK_F_DISCARD", nullptr), bit(13));
  EXPECT_EQ(parse_features("40,0", nullptr), bit(40) | bit(0));
}

TEST(ProxyMask, a_name_that_several_devices_have_needs_the_type) {
  const auto ambiguous = parse_features("MQ", nullptr);
  ASSERT_FALSE(ambiguous);
  EXPECT_EQ(ambiguous.error(), "'MQ' is a feature of net, blk: say --type");
  EXPECT_EQ(parse_features("MQ", find_device_type("blk")), bit(12));
  EXPECT_EQ(parse_features("MQ", find_device_type("net")), bit(22));
}

TEST(ProxyMask, mistakes_are_told) {
  EXPECT_THAT(parse_features("NONSENSE", nullptr).error(), HasSubstr("no feature 'NONSENSE'"));
  EXPECT_THAT(parse_features("MRG_RXBUF", find_device_type("blk")).error(), HasSubstr("a blk device has no"));
  EXPECT_THAT(parse_features("64", nullptr).error(), HasSubstr("64"));
  EXPECT_THAT(parse_features("EVENT_IDX,", nullptr).error(), HasSubstr("missing"));
  EXPECT_THAT(parse_protocol_features("NONSENSE").error(), HasSubstr("no protocol feature"));
  EXPECT_FALSE(parse_bits("xyz"));
  EXPECT_FALSE(parse_bits(""));
  EXPECT_FALSE(parse_bits("10000000000000000"));
}

TEST(ProxyMask, protocol_features_are_named_as_in_the_specification) {
  EXPECT_EQ(parse_protocol_features("REPLY_ACK,VHOST_USER_PROTOCOL_F_CONFIG,12"), bit(3) | bit(9) | bit(12));
}

TEST(ProxyMask, bits_are_hexadecimal) {
  EXPECT_EQ(parse_bits("0x170000e44"), 0x170000e44U);
  EXPECT_EQ(parse_bits("FFFFFFFFFFFFFFFF"), ~uint64_t{0});
}

TEST(ProxyMask, what_belongs_to_vhost_is_no_feature_of_the_device) {
  EXPECT_EQ(all_features_but(0x170000e44), ~(uint64_t{0x170000e44} | bit(26) | bit(30)));
}

TEST(ProxyMask, features_that_need_one_that_is_taken_go_with_it) {
  const DeviceType* const net = find_device_type("net");
  const uint64_t without_checksums = with_dependent_features(*parse_features("CSUM", net), net);
  EXPECT_EQ(without_checksums,
            *parse_features("CSUM,HOST_TSO4,HOST_TSO6,HOST_ECN,HOST_UFO,HOST_USO,RSC_EXT", net));
  EXPECT_EQ(with_dependent_features(*parse_features("HOST_TSO4", net), net),
            *parse_features("HOST_TSO4", net))
      << "HOST_TSO6 is enough for HOST_ECN";
  EXPECT_EQ(with_dependent_features(bit(0), nullptr), bit(0));
}

}  // namespace
}  // namespace ringway::tools
