#include "ringway/memory/map.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <vector>

#include "ringway/memory/file_test.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::memory {
namespace {

bool is_mapped(const std::byte* at) {
  const auto page = reinterpret_cast<uintptr_t>(at) / test_page * test_page;
  unsigned char resident = 0;
  return ::mincore(reinterpret_cast<void*>(page), 1, &resident) == 0;
}

Result<> open(const RegionLayout& layout, UniqueFd fd) {
  TRY(Region::open(layout, std::move(fd)));
  return {};
}

TEST(Region, shows_the_file_from_its_offset_which_need_not_be_aligned) {
  const UniqueFd fd = test_file(4 * test_page);
  const uint64_t offset = test_page + 520;
  const uint64_t value = 0x1122'3344'5566'7788;
  ASSERT_EQ(::pwrite(fd.get(), &value, sizeof value, static_cast<off_t>(offset)), 8);
  const auto region = Region::open(layout_at(0x1000, test_page, offset), copy_of(fd));
  ASSERT_TRUE(region);
  EXPECT_EQ(load<uint64_t>((*region)->data()), value);
}

constexpr unsigned huge_2_mb = 21U << 26U;  // MFD_HUGE_2MB, which linux/memfd.h has

// Nothing has to be reserved to map these; there are none at all on most machines.
UniqueFd huge_pages(uint64_t size) {
  UniqueFd fd(::memfd_create("ringway_test", MFD_CLOEXEC | MFD_HUGETLB | huge_2_mb));
  if (fd && ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) fd.reset();
  return fd;
}

TEST(Region, H101_of_huge_pages_may_begin_anywhere_in_one) {
  constexpr uint64_t huge = 2 << 20;
  const UniqueFd fd = huge_pages(4 * huge);
  if (!fd) GTEST_SKIP() << "this kernel has no huge pages";
  for (const uint64_t offset : {uint64_t{0}, test_page, huge + 3 * test_page, 2 * huge - test_page}) {
    const auto region = Region::open(layout_at(0x1000, huge, offset), copy_of(fd));
    ASSERT_TRUE(region) << region.error().to_string();
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*region)->data()) % huge, offset % huge);
    EXPECT_FALSE((*region)->broken());
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;  // their run-time libraries need mappings of their own
#else
constexpr bool sanitized = false;
#endif

TEST(Region, H116_of_huge_pages_that_are_not_there_breaks_at_the_first_touch) {
  constexpr uint64_t huge = 2 << 20;
  constexpr uint64_t size = uint64_t{1} << (sanitized ? 36 : 40);  // more than any machine has
  const UniqueFd fd = huge_pages(size);
  if (!fd) GTEST_SKIP() << "this kernel has no huge pages";
  const auto region = Region::open(layout_at(0, size), copy_of(fd));
  ASSERT_TRUE(region) << region.error().to_string();
  uint64_t touched = 0;
  for (; touched < size && !(*region)->broken(); touched += huge)
    EXPECT_EQ(load<uint8_t>((*region)->data() + touched), 0);
  EXPECT_TRUE((*region)->broken());
  store<uint8_t>((*region)->data() + touched, 1);  // goes nowhere, and does not fault again
}

TEST(Region, H316_that_finds_no_mapping_left_is_an_error_and_later_ones_work) {
  if (sanitized) GTEST_SKIP() << "a sanitizer cannot do without mappings";
  const auto exhaust = [] {
    const UniqueFd fd = test_file(test_page);
    std::vector<void*> pages;
    pages.reserve(1 << 21);
    while (pages.size() < pages.capacity()) {
      // Neighbours of different kinds are not merged.
      const int protection = pages.size() % 2 == 0 ? PROT_READ : PROT_NONE;
      void* page = ::mmap(nullptr, test_page, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (page == MAP_FAILED) break;
      pages.push_back(page);
    }
    const auto region = Region::open(layout_at(0x1000, test_page), copy_of(fd));
    const bool refused = !region && region.error().os_error == ENOMEM;
    for (void* page : pages) ::munmap(page, test_page);
    const bool works = Region::open(layout_at(0x1000, test_page), copy_of(fd)).has_value();
    ::_exit(refused && works ? 0 : 1);
  };
  EXPECT_EXIT(exhaust(), testing::ExitedWithCode(0), "");  // in a child, which has mappings of its own
}

TEST(Region, that_is_empty_or_wraps_is_refused) {
  const UniqueFd fd = test_file(4 * test_page);
  EXPECT_FALSE(open(layout_at(0x1000, 0), copy_of(fd)));
  EXPECT_FALSE(open({.guest = {UINT64_MAX - 0xfff}, .size = 0x2000, .front_end = {0}}, copy_of(fd)));
  EXPECT_FALSE(open({.guest = {0}, .size = 0x2000, .front_end = {UINT64_MAX - 0xfff}}, copy_of(fd)));
  EXPECT_FALSE(
      open({.guest = {0}, .size = 0x2000, .front_end = {0}, .file_offset = UINT64_MAX - 0xfff}, copy_of(fd)));
  EXPECT_FALSE(
      open({.guest = {0}, .size = 0x2000, .front_end = {0}, .file_offset = INT64_MAX - 0xfff}, copy_of(fd)));
}

TEST(Region, whose_size_rounds_up_to_zero_is_refused) {
  const UniqueFd device(::open("/dev/zero", O_RDWR | O_CLOEXEC));  // has no size that could be too small
  const uint64_t largest = INT64_MAX;
  EXPECT_FALSE(open({.guest = {0}, .size = largest, .front_end = {0}}, copy_of(device)));
  EXPECT_FALSE(open({.guest = {0}, .size = UINT64_MAX, .front_end = {0}}, copy_of(device)));
}

TEST(Region, that_ends_behind_its_file_is_refused) {
  const UniqueFd fd = test_file(2 * test_page);
  EXPECT_TRUE(open(layout_at(0x1000, 2 * test_page), copy_of(fd)));
  EXPECT_FALSE(open(layout_at(0x1000, 2 * test_page + 1), copy_of(fd)));
  EXPECT_FALSE(open(layout_at(0x1000, test_page, test_page + 1), copy_of(fd)));
}

TEST(Region, of_a_file_that_cannot_be_written_is_refused) {
  const UniqueFd fd = test_file(test_page);
  const UniqueFd read_only(
      ::open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(open(layout_at(0x1000, test_page), copy_of(read_only)));
}

TEST(Region, of_something_that_cannot_be_mapped_is_refused) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd reader(pipe[0]);
  const UniqueFd writer(pipe[1]);
  const UniqueFd event(::eventfd(0, 0));
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  const UniqueFd folder(::open("/", O_RDONLY | O_DIRECTORY));
  for (const UniqueFd* fd : {&reader, &writer, &event, &socket, &folder}) {
    EXPECT_FALSE(open(layout_at(0x1000, test_page), copy_of(*fd)));
  }
  EXPECT_FALSE(open(layout_at(0x1000, test_page), UniqueFd()));
}

TEST(Region, that_is_refused_has_closed_its_fd) {
  UniqueFd fd = test_file(test_page);
  const int number = fd.get();
  EXPECT_FALSE(Region::open(layout_at(0x1000, 2 * test_page), std::move(fd)));
  EXPECT_LT(::fcntl(number, F_GETFD), 0);
}

TEST(Region, is_unmapped_and_its_fd_closed_when_the_last_holder_ends) {
  auto map = map_of({test_region(0x1000, test_page)});
  const auto holder = map;
  const std::byte* const data = map->regions()[0]->data();
  const int fd = map->regions()[0]->fd();
  map = Map::empty();
  EXPECT_TRUE(is_mapped(data));
  const_cast<std::shared_ptr<const Map>&>(holder).reset();
  EXPECT_FALSE(is_mapped(data));
  EXPECT_LT(::fcntl(fd, F_GETFD), 0);
}

TEST(Map, finds_regions_by_both_kinds_of_address_up_to_their_last_byte) {
  const auto map = map_of({test_region(0x10000, 0x2000), test_region(0x1000, 0x1000)});
  EXPECT_EQ(map->find(GuestAddress{0xfff}), nullptr);
  EXPECT_EQ(map->find(GuestAddress{0x1fff})->layout().guest.value, 0x1000U);
  EXPECT_EQ(map->find(GuestAddress{0x2000}), nullptr);
  EXPECT_EQ(map->find(GuestAddress{0x11fff})->layout().guest.value, 0x10000U);
  EXPECT_EQ(map->find(GuestAddress{0x12000}), nullptr);
  EXPECT_EQ(map->find(FrontEndAddress{0x7f00'0001'1fff})->layout().guest.value, 0x10000U);
  EXPECT_EQ(map->find(FrontEndAddress{0x1000}), nullptr);
  EXPECT_EQ(Map::empty()->find(GuestAddress{0}), nullptr);
}

TEST(Map, with_regions_that_overlap_by_a_byte_is_refused_and_those_that_touch_are_not) {
  const auto first = test_region(0x1000, 0x2000);
  EXPECT_TRUE(Map::of({first, test_region(0x3000, 0x1000)}));
  EXPECT_FALSE(Map::of({first, first}));
  const RegionLayout guest_overlap{.guest = {0x2fff}, .size = 0x1000, .front_end = {0x1000}};
  const RegionLayout front_end_overlap{.guest = {0x8000}, .size = 0x1000, .front_end = {0x7f00'0000'2fff}};
  const RegionLayout around{.guest = {0}, .size = 0x10000, .front_end = {0x1000}};
  for (const RegionLayout& layout : {guest_overlap, front_end_overlap, around}) {
    const auto second = Region::open(layout, test_file(layout.size));
    ASSERT_TRUE(second);
    EXPECT_FALSE(Map::of({first, *second}));
    EXPECT_FALSE(map_of({first})->with(*second));
  }
}

TEST(Map, may_have_two_regions_of_the_same_file_range) {
  const UniqueFd fd = test_file(test_page);
  const auto first = Region::open(layout_at(0x1000, test_page), copy_of(fd));
  const auto second = Region::open(layout_at(0x8000, test_page), copy_of(fd));
  ASSERT_TRUE(first && second);
  const auto map = Map::of({*first, *second});
  ASSERT_TRUE(map);
  store<uint8_t>((*first)->data(), 7);
  EXPECT_EQ(load<uint8_t>((*second)->data()), 7);
}

TEST(Map, a_region_is_removed_by_its_addresses_and_size_whatever_the_file_offset) {
  const auto map = map_of({test_region(0x1000, test_page), test_region(0x8000, test_page)});
  RegionLayout layout = layout_at(0x1000, test_page, 12345);
  const auto without = map->without(layout);
  ASSERT_TRUE(without);
  EXPECT_EQ((*without)->regions().size(), 1U);
  EXPECT_EQ((*without)->regions()[0]->layout().guest.value, 0x8000U);
  EXPECT_FALSE((*without)->without(layout));
  layout.size = test_page + 1;
  EXPECT_FALSE(map->without(layout));
  layout = layout_at(0x1000, test_page);
  layout.front_end.value += 1;
  EXPECT_FALSE(map->without(layout));
}

class Translate : public testing::Test {
 protected:
  std::array<iovec, 4> storage_{};
  Segments pieces_{storage_};
  // Two that touch in guest addresses, and one behind a gap.
  std::shared_ptr<const Map> map_ =
      map_of({test_region(0x1000, 0x1000), test_region(0x2000, 0x1000), test_region(0x4000, 0x1000)});
};

TEST_F(Translate, gives_pieces_that_cover_all_of_a_range_over_several_regions) {
  ASSERT_TRUE(map_->translate(GuestAddress{0x1800}, 0x1000, pieces_));
  EXPECT_EQ(bytes_of(pieces_.all()), 0x1000U);
  EXPECT_EQ(storage_[0].iov_base, map_->regions()[0]->data() + 0x800);
}

TEST_F(Translate, fails_if_any_byte_is_outside) {
  EXPECT_FALSE(map_->translate(GuestAddress{0x2800}, 0x801, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{0x2800}, 0x2000, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{0xfff}, 1, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{0xfff}, 2, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{0x4000}, UINT64_MAX, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{UINT64_MAX}, 2, pieces_));
}

TEST_F(Translate, of_nothing_succeeds_inside_a_region_only) {
  EXPECT_TRUE(map_->translate(GuestAddress{0x1fff}, 0, pieces_));
  EXPECT_EQ(pieces_.size(), 0U);
  EXPECT_FALSE(map_->translate(GuestAddress{0x3000}, 0, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{0x5000}, 0, pieces_));
}

TEST_F(Translate, fails_when_there_is_no_room_for_the_pieces) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(map_->translate(GuestAddress{0x1000}, 16, pieces_));
  EXPECT_FALSE(map_->translate(GuestAddress{0x1000}, 16, pieces_));
  EXPECT_EQ(pieces_.size(), 4U);
}

TEST_F(Translate, takes_front_end_addresses_too) {
  ASSERT_TRUE(map_->translate(FrontEndAddress{0x7f00'0000'4010}, 16, pieces_));
  EXPECT_EQ(storage_[0].iov_base, map_->regions()[2]->data() + 0x10);
  EXPECT_FALSE(map_->translate(FrontEndAddress{0x4010}, 16, pieces_));
}

TEST_F(Translate, pieces_merge_where_they_touch_but_not_over_a_fence) {
  ASSERT_TRUE(map_->translate(GuestAddress{0x1000}, 16, pieces_));
  ASSERT_TRUE(map_->translate(GuestAddress{0x1010}, 16, pieces_));
  EXPECT_EQ(pieces_.size(), 1U);
  pieces_.fence();
  ASSERT_TRUE(map_->translate(GuestAddress{0x1020}, 16, pieces_));
  EXPECT_EQ(pieces_.size(), 2U);
}

TEST(Map, whose_memory_was_truncated_says_so_after_the_first_touch) {
  const UniqueFd fd = test_file(2 * test_page);
  const auto map =
      map_of({*Region::open(layout_at(0x1000, 2 * test_page), copy_of(fd)), test_region(0x8000, test_page)});
  ASSERT_EQ(::ftruncate(fd.get(), 0), 0);
  EXPECT_FALSE(map->broken());
  EXPECT_EQ(load<uint64_t>(map->find(GuestAddress{0x2000})->data() + test_page), 0U);
  EXPECT_TRUE(map->broken());
}

}  // namespace
}  // namespace ringway::memory
