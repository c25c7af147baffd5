#include "ringway/tools/device_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <set>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using vhost::bit;

uint64_t bits(std::initializer_list<unsigned> numbers) {
  uint64_t mask = bit(32) | bit(30) | bit(29) | bit(28);
  for (const unsigned number : numbers) mask |= bit(number);
  return mask;
}

std::vector<std::string_view> guesses(uint64_t features, uint64_t protocol = 0) {
  std::vector<std::string_view> names;
  for (const DeviceType* type : possible_types(features, protocol)) names.push_back(type->name);
  return names;
}

TEST(DeviceNames, NoBitHasTwoNames) {
  for (const DeviceType& type : device_types()) {
    std::set<unsigned> seen;
    for (const BitName& name : type.features)
      EXPECT_TRUE(seen.insert(name.bit).second) << type.name << ' ' << name.bit;
    EXPECT_EQ(type.feature_mask() & common_feature_mask(), 0U) << type.name;
    EXPECT_EQ(type.typical & ~type.feature_mask(), 0U) << type.name;
  }
}

TEST(DeviceNames, ABitIsNamedByItsDeviceOrByItsNumber) {
  EXPECT_EQ(feature_name(find_device_type("blk"), 13), "DISCARD");
  EXPECT_EQ(feature_name(find_device_type("net"), 13), "HOST_ECN");
  EXPECT_EQ(feature_name(nullptr, 13), "bit 13");
  EXPECT_EQ(feature_name(nullptr, 34), "RING_PACKED");
}

TEST(DeviceNames, DisksAreKnownByTheirFeatures) {
  EXPECT_THAT(guesses(bits({1, 2, 6, 9, 10, 11, 12, 13, 14})), ElementsAre("blk"));
  EXPECT_THAT(guesses(bits({2, 4, 5, 6, 10, 12})), testing::Contains("blk"));
}

TEST(DeviceNames, NetworkCardsAreKnownByTheirFeatures) {
  EXPECT_THAT(guesses(bits({15})), ElementsAre("net"));
  EXPECT_THAT(guesses(bits({0, 1, 7, 10, 11, 14, 17, 22})), ElementsAre("net"));
}

TEST(DeviceNames, ScsiComesBeforeWhatElseItCouldBe) {
  const auto names = guesses(bits({0, 1, 2}));
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), "scsi");
}

TEST(DeviceNames, CryptoIsKnownByItsProtocolFeature) {
  EXPECT_THAT(guesses(bits({}), bit(vhost::VHOST_USER_PROTOCOL_F_CRYPTO_SESSION)), ElementsAre("crypto"));
}

TEST(DeviceNames, NothingIsGuessedWhereNothingTells) { EXPECT_THAT(guesses(bits({})), IsEmpty()); }

}  // namespace
}  // namespace ringway::tools
