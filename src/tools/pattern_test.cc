#include "ringway/tools/pattern.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace ringway::tools {
namespace {

constexpr Tag tag{.seed = 99, .offset = 8192, .generation = 5};

std::vector<std::byte> block(const Tag& of) {
  std::vector<std::byte> bytes(4096);
  fill(bytes, of);
  return bytes;
}

TEST(Pattern, ABlockIsRightWhereItWasWritten) { EXPECT_EQ(examine(block(tag), tag).verdict, Verdict::right); }

TEST(Pattern, AnySingleBitThatFlipsIsFound) {
  const std::vector<std::byte> good = block(tag);
  for (size_t at = 0; at < good.size(); ++at) {
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{1} << (at % 8);
    const Diagnosis finding = examine(bad, tag);
    ASSERT_NE(finding.verdict, Verdict::right) << at;
    ASSERT_EQ(finding.offset, tag.offset + at / 512 * 512);
  }
}

TEST(Pattern, AnEarlierWriteIsStale) {
  const Diagnosis finding = examine(block({.seed = 99, .offset = 8192, .generation = 4}), tag);
  EXPECT_EQ(finding.verdict, Verdict::stale);
  EXPECT_EQ(finding.found.generation, 4U);
}

TEST(Pattern, ALaterWriteThanTheLastIsTold) {
  EXPECT_EQ(examine(block({.seed = 99, .offset = 8192, .generation = 6}), tag).verdict, Verdict::newer);
}

TEST(Pattern, AWriteToAnotherPlaceIsMisplaced) {
  const Diagnosis finding = examine(block({.seed = 99, .offset = 4096, .generation = 5}), tag);
  EXPECT_EQ(finding.verdict, Verdict::misplaced);
  EXPECT_EQ(finding.found.offset, 4096U);
}

TEST(Pattern, AnotherRunIsForeign) {
  EXPECT_EQ(examine(block({.seed = 98, .offset = 8192, .generation = 5}), tag).verdict, Verdict::foreign);
}

TEST(Pattern, ABlockNeverWrittenIsZeros) {
  EXPECT_EQ(examine(std::vector<std::byte>(4096), tag).verdict, Verdict::zeros);
}

TEST(Pattern, ABufferThatNothingWasReadIntoIsTold) {
  std::vector<std::byte> bytes = block(tag);
  scrub(bytes);
  EXPECT_EQ(examine(bytes, tag).verdict, Verdict::untouched);
}

TEST(Pattern, HalfAWriteIsFoundAtItsBorder) {
  std::vector<std::byte> bytes = block(tag);
  const std::vector<std::byte> old = block({.seed = 99, .offset = 8192, .generation = 3});
  std::memcpy(bytes.data() + 2048, old.data() + 2048, 2048);
  const Diagnosis finding = examine(bytes, tag);
  EXPECT_EQ(finding.verdict, Verdict::stale);
  EXPECT_EQ(finding.offset, tag.offset + 2048);
  std::memset(bytes.data() + 700, 0, 100);
  EXPECT_EQ(examine(bytes, tag).verdict, Verdict::torn);
}

}  // namespace
}  // namespace ringway::tools
