#include "ringway/memory/view.h"

#include <gtest/gtest.h>

#include <array>

#include "ringway/memory/file_test.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::memory {
namespace {

std::shared_ptr<const IotlbTable> table_of(std::initializer_list<IotlbEntry> entries) {
  auto table = IotlbTable::empty();
  for (const IotlbEntry& one : entries) table = table->with(one).value();
  return table;
}

constexpr uint64_t front_end = 0x7f00'0000'0000;  // of guest address 0: see layout_at()

class ViewTest : public testing::Test {
 protected:
  Translation translate(View& view, uint64_t address, uint64_t length, Access access = Access::read) {
    pieces_.clear();
    return view.translate({address}, length, access, pieces_);
  }
  std::array<iovec, 8> storage_{};
  Segments pieces_{storage_};
  std::shared_ptr<const Map> map_ = map_of({test_region(0x1000, 0x4000), test_region(0x10000, 0x4000)});
};

TEST_F(ViewTest, without_an_IOTLB_addresses_are_guest_addresses) {
  View view(map_);
  EXPECT_EQ(translate(view, 0x1000, 0x4000).outcome, Translation::ok);
  EXPECT_EQ(storage_[0].iov_base, map_->regions()[0]->data());
  EXPECT_EQ(translate(view, 0x10000, 1).outcome, Translation::ok);
  EXPECT_EQ(translate(view, 0xfff, 1).outcome, Translation::outside);
}

TEST_F(ViewTest, the_region_that_was_hit_last_does_not_lend_its_neighbours_bytes) {
  View view(map_);
  ASSERT_EQ(translate(view, 0x4fff, 1).outcome, Translation::ok);
  EXPECT_EQ(translate(view, 0x4fff, 2).outcome, Translation::outside);
  EXPECT_EQ(translate(view, 0x5000, 0).outcome, Translation::outside);
  EXPECT_EQ(translate(view, 0x1000, UINT64_MAX).outcome, Translation::outside);
  EXPECT_EQ(translate(view, UINT64_MAX, UINT64_MAX).outcome, Translation::outside);
}

TEST_F(ViewTest, of_nothing_translates_nothing) {
  View view(Map::empty());
  EXPECT_EQ(translate(view, 0, 0).outcome, Translation::outside);
  View with_iotlb(Map::empty(), IotlbTable::empty());
  EXPECT_EQ(translate(with_iotlb, 0, 0).outcome, Translation::miss);
}

TEST_F(ViewTest, with_an_IOTLB_what_is_not_in_it_is_a_miss_with_address_and_access) {
  View view(
      map_,
      table_of(
          {{.iova = {0x1000}, .size = 0x1000, .front_end = {front_end + 0x1000}, .access = Access::read}}));
  EXPECT_EQ(translate(view, 0x1000, 0x1000).outcome, Translation::ok);
  auto missing = translate(view, 0x1800, 0x1000);
  EXPECT_EQ(missing.outcome, Translation::miss);
  EXPECT_EQ(missing.address.value, 0x2000U);
  EXPECT_EQ(missing.access, Access::read);
  missing = translate(view, 0x1000, 16, Access::write);
  EXPECT_EQ(missing.outcome, Translation::miss);
  EXPECT_EQ(missing.address.value, 0x1000U);
  EXPECT_EQ(missing.access, Access::write);
}

TEST_F(ViewTest, with_an_IOTLB_guest_addresses_of_regions_mean_nothing) {
  View view(map_, table_of({{.iova = {0x10000}, .size = 0x1000, .front_end = {front_end + 0x1000}}}));
  ASSERT_EQ(translate(view, 0x10010, 16).outcome, Translation::ok);
  EXPECT_EQ(storage_[0].iov_base, map_->regions()[0]->data() + 0x10);
  EXPECT_EQ(translate(view, 0x1000, 16).outcome, Translation::miss);
}

TEST_F(ViewTest, an_IOTLB_entry_that_points_outside_all_regions_is_outside) {
  View view(map_, table_of({{.iova = {0}, .size = 0x10000, .front_end = {front_end + 0x1000}}}));
  EXPECT_EQ(translate(view, 0, 0x4000).outcome, Translation::ok);
  EXPECT_EQ(translate(view, 0, 0x4001).outcome, Translation::outside);
  EXPECT_EQ(translate(view, 0x5000, 0).outcome, Translation::outside);
}

TEST_F(ViewTest, a_range_behind_the_last_address_is_outside_or_a_miss_and_never_wraps) {
  const uint64_t last_page = UINT64_MAX - 0xfff;
  View view(map_, table_of({{.iova = {last_page}, .size = 0x1000, .front_end = {front_end + 0x1000}},
                            {.iova = {0}, .size = 0x1000, .front_end = {front_end + 0x2000}}}));
  EXPECT_EQ(translate(view, last_page, 0x1000).outcome, Translation::ok);
  EXPECT_EQ(translate(view, last_page, 0x1001).outcome, Translation::outside);
}

TEST_F(ViewTest, pages_that_an_IOMMU_scatters_become_pieces_in_their_order) {
  View view(map_, table_of({{.iova = {0x8000}, .size = 0x1000, .front_end = {front_end + 0x12000}},
                            {.iova = {0x9000}, .size = 0x1000, .front_end = {front_end + 0x1000}}}));
  ASSERT_EQ(translate(view, 0x8ff0, 0x20).outcome, Translation::ok);
  ASSERT_EQ(pieces_.size(), 2U);
  EXPECT_EQ(storage_[0].iov_base, map_->regions()[1]->data() + 0x2ff0);
  EXPECT_EQ(storage_[1].iov_base, map_->regions()[0]->data());
}

class WindowTest : public ViewTest {
 protected:
  Result<Window> open(uint64_t address, uint64_t length, std::shared_ptr<const IotlbTable> iotlb = nullptr) {
    return Window::open(View(map_, std::move(iotlb)), {address}, length, Access::read_write, failure_);
  }
  // IOVA 0x8000: three pages, from here and there.
  static std::shared_ptr<const IotlbTable> scattered() {
    return table_of({{.iova = {0x8000}, .size = 0x1000, .front_end = {front_end + 0x12000}},
                     {.iova = {0x9000}, .size = 0x1000, .front_end = {front_end + 0x1000}},
                     {.iova = {0xa000}, .size = 0x1000, .front_end = {front_end + 0x13000}}});
  }
  Translation failure_;
};

TEST_F(WindowTest, over_one_piece_is_that_piece) {
  const auto window = open(0x1010, 0x100);
  ASSERT_TRUE(window);
  EXPECT_EQ(window->data(), map_->regions()[0]->data() + 0x10);
  EXPECT_EQ(window->size(), 0x100U);
}

TEST_F(WindowTest, says_whether_the_address_is_bad_or_only_unknown) {
  EXPECT_FALSE(open(0x4ff0, 0x20));
  EXPECT_EQ(failure_.outcome, Translation::outside);
  EXPECT_FALSE(open(0xb000, 0x20, scattered()));
  EXPECT_EQ(failure_.outcome, Translation::miss);
  EXPECT_EQ(failure_.address.value, 0xb000U);
}

TEST_F(WindowTest, of_no_bytes_is_refused) {
  EXPECT_FALSE(open(0x1000, 0));
  EXPECT_FALSE(open(0x8000, 0, scattered()));
  EXPECT_FALSE(Window::open(map_, FrontEndAddress{front_end + 0x1000}, 0));
}

TEST_F(WindowTest, over_scattered_pages_is_contiguous_and_the_same_memory) {
  const auto window = open(0x8ff0, 0x2010, scattered());
  ASSERT_TRUE(window);
  store<uint8_t>(window->data() + 0xf, 1);            // last byte of the first page
  store<uint8_t>(window->data() + 0x10, 2);           // first of the second
  store<uint8_t>(window->data() + 0x10 + 0x1fff, 3);  // last of the third
  EXPECT_EQ(load<uint8_t>(map_->regions()[1]->data() + 0x2fff), 1);
  EXPECT_EQ(load<uint8_t>(map_->regions()[0]->data()), 2);
  EXPECT_EQ(load<uint8_t>(map_->regions()[1]->data() + 0x3fff), 3);
}

TEST_F(WindowTest, over_pieces_that_are_no_whole_pages_is_refused) {
  const auto table = table_of({{.iova = {0x8000}, .size = 0x800, .front_end = {front_end + 0x12000}},
                               {.iova = {0x8800}, .size = 0x800, .front_end = {front_end + 0x1800}}});
  EXPECT_FALSE(open(0x8000, 0x1000, table));
  EXPECT_TRUE(open(0x8000, 0x800, table));
}

TEST_F(WindowTest, keeps_its_memory_mapped) {
  auto window = open(0x8000, 0x2000, scattered());
  ASSERT_TRUE(window);
  map_ = Map::empty();
  store<uint64_t>(window->data() + 0x1ff8, 1);
}

TEST_F(WindowTest, whose_memory_was_truncated_says_so_after_the_first_touch) {
  const UniqueFd fd = test_file(4 * test_page);
  map_ = map_of({*Region::open(layout_at(0x1000, 4 * test_page), copy_of(fd))});
  const auto table = table_of({{.iova = {0x8000}, .size = 0x1000, .front_end = {front_end + 0x3000}},
                               {.iova = {0x9000}, .size = 0x1000, .front_end = {front_end + 0x1000}}});
  const auto whole = open(0x1000, 0x4000);
  const auto stitched = open(0x8000, 0x2000, table);
  ASSERT_TRUE(whole && stitched);
  ASSERT_EQ(::ftruncate(fd.get(), 0), 0);
  EXPECT_EQ(load<uint8_t>(stitched->data()), 0);
  EXPECT_TRUE(stitched->broken());
  EXPECT_EQ(load<uint8_t>(whole->data()), 0);
  EXPECT_TRUE(whole->broken());
}

}  // namespace
}  // namespace ringway::memory
