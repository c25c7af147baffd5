#include "ringway/tools/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace ringway::tools {
namespace {

uint64_t exact(const std::vector<uint64_t>& sorted, double percent) {
  const auto rank = static_cast<size_t>(std::ceil(percent / 100 * static_cast<double>(sorted.size())));
  return sorted[std::max<size_t>(rank, 1) - 1];
}

TEST(Histogram, AnEmptyOneHasNothingToSay) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.min(), 0U);
  EXPECT_EQ(histogram.max(), 0U);
  EXPECT_EQ(histogram.mean(), 0);
  EXPECT_EQ(histogram.percentile(99), 0U);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram histogram;
  for (uint64_t value = 0; value < 256; ++value) histogram.record(value);
  for (uint64_t value = 0; value < 256; ++value) {
    EXPECT_EQ(histogram.percentile(100.0 * static_cast<double>(value + 1) / 256), value);
  }
}

TEST(Histogram, EveryValueIsFoundAgainWithinTheStatedError) {
  for (unsigned width = 1; width <= Histogram::max_bits; ++width) {
    const uint64_t low = uint64_t{1} << (width - 1);
    for (const uint64_t value : {low, low + low / 3, low + low / 2 + 1, 2 * low - 1}) {
      Histogram histogram;
      histogram.record(value);
      histogram.record(0);           // so that the answer is not
      histogram.record(UINT64_MAX);  // clamped to what is known exactly
      const double found = static_cast<double>(histogram.percentile(50));
      const double wanted = static_cast<double>(value);
      EXPECT_LE(std::abs(found - wanted), wanted / (2 << Histogram::precision_bits)) << value;
    }
  }
}

TEST(Histogram, PercentilesAgreeWithASortedList) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(9, 1.5);
  Histogram histogram;
  std::vector<uint64_t> values(50'000);
  for (uint64_t& value : values) {
    value = static_cast<uint64_t>(latency(random));
    histogram.record(value);
  }
  std::ranges::sort(values);
  for (const double percent : {0.0, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const auto wanted = static_cast<double>(exact(values, percent));
    EXPECT_NEAR(static_cast<double>(histogram.percentile(percent)), wanted, wanted / 256 + 1) << percent;
  }
  EXPECT_EQ(histogram.min(), values.front());
  EXPECT_EQ(histogram.max(), values.back());
}

TEST(Histogram, ValuesBeyondTheLastBucketAreCountedAndTheMaximumStaysExact) {
  Histogram histogram;
  histogram.record(uint64_t{1} << Histogram::max_bits);
  histogram.record(UINT64_MAX / 4);
  EXPECT_EQ(histogram.count(), 2U);
  EXPECT_EQ(histogram.max(), UINT64_MAX / 4);
  EXPECT_GE(histogram.percentile(50), uint64_t{1} << Histogram::max_bits);
}

TEST(Histogram, AddingTwoIsRecordingAll) {
  Histogram one;
  Histogram two;
  Histogram both;
  for (uint64_t value = 1; value < 100'000; value = value * 5 / 4 + 1) {
    (value % 2 == 0 ? one : two).record(value);
    both.record(value);
  }
  one.add(two);
  EXPECT_EQ(one.count(), both.count());
  EXPECT_EQ(one.min(), both.min());
  EXPECT_EQ(one.max(), both.max());
  EXPECT_DOUBLE_EQ(one.mean(), both.mean());
  for (const double percent : {5.0, 50.0, 95.0}) EXPECT_EQ(one.percentile(percent), both.percentile(percent));
}

TEST(Histogram, ClearedItIsLikeNew) {
  Histogram histogram;
  histogram.record(5);
  histogram.clear();
  EXPECT_EQ(histogram.count(), 0U);
  histogram.record(900);
  EXPECT_EQ(histogram.min(), 900U);
  EXPECT_EQ(histogram.percentile(50), 900U);
}

}  // namespace
}  // namespace ringway::tools
