#include "ringway/kernel/iova_map.h"

#include <gtest/gtest.h>

namespace ringway::kernel {
namespace {

constexpr uint64_t page = 4096;

// One region; `at` is its front-end address.
IovaMap::Mapping mapping(uint64_t iova, uint64_t size, uint64_t at) {
  return {.iova = iova,
          .size = size,
          .regions = {{.guest = {iova}, .size = size, .front_end = {at}, .file_offset = 0}}};
}

TEST(IovaMap, an_address_is_found_within_its_mapping_and_nowhere_else) {
  IovaMap map;
  map.add(mapping(4 * page, 2 * page, 100 * page));
  EXPECT_EQ(map.front_end(4 * page, 2 * page), 100 * page);
  EXPECT_EQ(map.front_end(5 * page + 8, 16), 101 * page + 8);
  EXPECT_FALSE(map.front_end(5 * page, page + 1));
  EXPECT_FALSE(map.front_end(4 * page - 1, 1));
  EXPECT_FALSE(map.front_end(6 * page, 1));
}

TEST(IovaMap, a_range_may_cross_mappings_that_continue_each_other) {
  IovaMap map;
  map.add(mapping(page, page, 100 * page));
  map.add(mapping(0, page, 99 * page));
  map.add(mapping(2 * page, page, 7 * page));
  EXPECT_EQ(map.front_end(0, 2 * page), 99 * page);
  EXPECT_FALSE(map.front_end(page, 2 * page)) << "they do not lie side by side";
}

TEST(IovaMap, what_meets_a_range_goes_as_a_whole) {
  IovaMap map;
  for (uint64_t i = 0; i < 3; ++i) map.add(mapping(i * 4 * page, 4 * page, (100 + i) * 4 * page));
  EXPECT_TRUE(map.has_any_in(0, 1));
  EXPECT_FALSE(map.has_any_in(12 * page, page));
  const auto gone = map.take(3 * page, 2 * page);
  ASSERT_EQ(gone.size(), 2U);
  EXPECT_FALSE(map.front_end(0, 1));
  EXPECT_FALSE(map.front_end(4 * page, 1));
  EXPECT_TRUE(map.front_end(8 * page, 4 * page));
  EXPECT_EQ(map.take(0, UINT64_MAX).size(), 1U);
  EXPECT_TRUE(map.empty());
}

TEST(IovaMap, the_last_address_may_be_mapped) {
  IovaMap map;
  map.add(mapping(UINT64_MAX - page + 1, page, page));
  EXPECT_EQ(map.front_end(UINT64_MAX, 1), 2 * page - 1);
  EXPECT_TRUE(map.has_any_in(UINT64_MAX, 1));
}

}  // namespace
}  // namespace ringway::kernel
