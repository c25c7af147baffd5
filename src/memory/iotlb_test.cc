#include "ringway/memory/iotlb.h"

#include <gtest/gtest.h>

namespace ringway::memory {
namespace {

IotlbEntry entry(uint64_t iova, uint64_t size, Access access = Access::read_write) {
  return {.iova = {iova}, .size = size, .front_end = {iova + 0x10'0000'0000}, .access = access};
}

std::shared_ptr<const IotlbTable> table_of(std::initializer_list<IotlbEntry> entries) {
  auto table = IotlbTable::empty();
  for (const IotlbEntry& one : entries) table = table->with(one).value();
  return table;
}

TEST(IotlbTable, finds_an_entry_by_each_of_its_addresses_and_no_other) {
  const auto table = table_of({entry(0x3000, 0x1000), entry(0x1000, 0x1000)});
  EXPECT_EQ(table->find({0xfff}), nullptr);
  ASSERT_NE(table->find({0x1000}), nullptr);
  EXPECT_EQ(table->find({0x1fff})->iova.value, 0x1000U);
  EXPECT_EQ(table->find({0x2000}), nullptr);
  EXPECT_EQ(table->find({0x3fff})->iova.value, 0x3000U);
  EXPECT_EQ(table->find({0x4000}), nullptr);
  EXPECT_EQ(table->find({UINT64_MAX}), nullptr);
}

TEST(IotlbTable, a_new_entry_replaces_all_that_it_overlaps) {
  const auto table =
      table_of({entry(0x1000, 0x1000), entry(0x2000, 0x1000), entry(0x3000, 0x1000), entry(0x1800, 0x1000)});
  EXPECT_EQ(table->entries().size(), 2U);
  EXPECT_EQ(table->find({0x1000}), nullptr);
  EXPECT_EQ(table->find({0x2000})->iova.value, 0x1800U);
  EXPECT_EQ(table->find({0x3000})->iova.value, 0x3000U);
}

TEST(IotlbTable, a_table_that_somebody_holds_does_not_change) {
  const auto before = table_of({entry(0x1000, 0x1000)});
  const auto after = before->without({0x1000}, 0x1000);
  EXPECT_NE(before->find({0x1000}), nullptr);
  EXPECT_EQ(after->find({0x1000}), nullptr);
}

TEST(IotlbTable, invalidation_removes_whatever_it_touches_by_a_byte) {
  const auto table = table_of({entry(0x1000, 0x1000), entry(0x2000, 0x1000), entry(0x3000, 0x1000)});
  EXPECT_EQ(table->without({0x1fff}, 2)->entries().size(), 1U);
  EXPECT_EQ(table->without({0x0}, 0x1000)->entries().size(), 3U);
  EXPECT_EQ(table->without({0x1000}, 0)->entries().size(), 3U);
  EXPECT_EQ(table->without({0x0}, UINT64_MAX)->entries().size(), 0U);
  EXPECT_EQ(table->without({0x2000}, UINT64_MAX)->entries().size(), 1U);
}

TEST(IotlbTable, says_whether_a_range_is_touched) {
  const auto table = table_of({entry(0x1000, 0x1000)});
  EXPECT_FALSE(table->overlaps({0x0}, 0x1000));
  EXPECT_TRUE(table->overlaps({0x0}, 0x1001));
  EXPECT_TRUE(table->overlaps({0x1fff}, UINT64_MAX));
  EXPECT_FALSE(table->overlaps({0x2000}, UINT64_MAX));
  EXPECT_FALSE(table->overlaps({0x1000}, 0));
}

TEST(IotlbTable, an_entry_may_reach_the_last_address_and_not_beyond) {
  const auto table = IotlbTable::empty();
  const IotlbEntry last{.iova = {UINT64_MAX - 0xfff}, .size = 0x1000, .front_end = {0x1000}};
  ASSERT_TRUE(table->with(last));
  EXPECT_NE((*table->with(last))->find({UINT64_MAX}), nullptr);
  EXPECT_EQ((*table->with(last))->without({UINT64_MAX}, 1)->entries().size(), 0U);
  EXPECT_FALSE(table->with({.iova = {UINT64_MAX - 0xfff}, .size = 0x1001, .front_end = {0x1000}}));
  EXPECT_FALSE(table->with({.iova = {0x1000}, .size = 0x1001, .front_end = {UINT64_MAX - 0xfff}}));
  EXPECT_FALSE(table->with({.iova = {2}, .size = UINT64_MAX, .front_end = {0}}));
  EXPECT_FALSE(table->with(entry(0x1000, 0)));
}

TEST(IotlbTable, a_flood_of_updates_evicts_and_does_not_grow) {
  auto table = IotlbTable::empty();
  for (uint64_t page = 0; page < 50'000; ++page) table = table->with(entry(page << 12, 0x1000)).value();
  EXPECT_EQ(table->entries().size(), IotlbTable::max_entries);
  EXPECT_NE(table->find({49'999ULL << 12}), nullptr)
      << "the newest entry must be there, or a miss never ends";
}

}  // namespace
}  // namespace ringway::memory
