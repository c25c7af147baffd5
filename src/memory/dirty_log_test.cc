#include "ringway/memory/dirty_log.h"

#include <thread>

#include "ringway/memory/file_test.h"

namespace ringway::memory {
namespace {

constexpr uint64_t page = DirtyLog::page_bytes;

// A log of `size` bytes from `offset`, as its owner sees the file.
class DirtyLogTest : public testing::Test {
 protected:
  void open(uint64_t size, uint64_t offset = 0) {
    file_ = test_file(size + offset + 64);
    view_ = *Mapping::of_file(file_.get(), size + offset + 64, 0);
    log_ = *DirtyLog::open(file_, size, offset);
    offset_ = offset;
  }
  void wrote(uint64_t address, uint64_t length) {
    pages_.add({address}, length, *log_);
    pages_.mark(*log_);
  }
  [[nodiscard]] std::vector<uint64_t> marked() const {
    std::vector<uint64_t> pages;
    for (uint64_t bit = 0; bit < view_.size() * 8; ++bit) {
      const auto byte = static_cast<uint8_t>(view_.bytes()[bit / 8]);
      if ((byte >> bit % 8 & 1) != 0) pages.push_back(bit - offset_ * 8);
    }
    return pages;
  }
  UniqueFd file_;
  Mapping view_;
  std::shared_ptr<const DirtyLog> log_;
  DirtyPages pages_;
  uint64_t offset_ = 0;
};

using Pages = std::vector<uint64_t>;

TEST_F(DirtyLogTest, N054_the_bit_of_a_page_is_at_its_number_and_single_bytes_at_borders_mark_one_page) {
  open(16);
  wrote(3 * page, 1);
  EXPECT_EQ(marked(), Pages({3}));
  wrote(9 * page - 1, 1);
  EXPECT_EQ(marked(), Pages({3, 8}));
  wrote(9 * page - 1, 2);
  EXPECT_EQ(marked(), Pages({3, 8, 9}));
}

TEST_F(DirtyLogTest, H122_with_a_non_zero_offset_the_bits_begin_there_and_only_there) {
  for (const uint64_t offset : {1, 8, 4095, 4096, 4097, 12291}) {
    open(16, offset);
    wrote(0, 1);
    wrote(127 * page, page);
    EXPECT_EQ(marked(), Pages({0, 127})) << offset;
  }
}

TEST_F(DirtyLogTest, ranges_mark_every_page_from_the_first_byte_to_the_last) {
  for (uint64_t first = 0; first < 20; ++first) {
    for (uint64_t count = 1; count < 20; ++count) {
      open(8);
      wrote(first * page + 17, count * page - 17);
      Pages expected;
      for (uint64_t i = 0; i < count; ++i) expected.push_back(first + i);
      ASSERT_EQ(marked(), expected);
    }
  }
}

TEST_F(DirtyLogTest, H121_pages_behind_the_log_are_dropped_and_nothing_is_written_outside) {
  open(2, 5);
  wrote(15 * page, 2 * page);
  wrote(16 * page, page);
  wrote(UINT64_MAX - page, page);
  wrote(0, UINT64_MAX);
  EXPECT_EQ(marked().size(), 16U);
  EXPECT_EQ(marked().back(), 15U);
}

TEST_F(DirtyLogTest, H128_nothing_written_marks_nothing) {
  open(8);
  wrote(page, 0);
  wrote(0, 0);
  EXPECT_TRUE(marked().empty());
}

TEST_F(DirtyLogTest, more_ranges_than_a_batch_holds_are_all_marked) {
  open(128);
  Pages expected;
  for (uint64_t i = 0; i < 300; ++i) {
    pages_.add({i * 3 * page}, 1, *log_);
    expected.push_back(i * 3);
  }
  pages_.mark(*log_);
  EXPECT_EQ(marked(), expected);
}

TEST_F(DirtyLogTest, news_is_what_was_not_marked_before) {
  open(8);
  wrote(page, 1);
  EXPECT_TRUE(pages_.take_news());
  EXPECT_FALSE(pages_.take_news());
  wrote(page, 1);
  EXPECT_FALSE(pages_.take_news());
}

TEST_F(DirtyLogTest, H130_N055_marks_of_two_threads_in_one_byte_are_not_lost) {
  open(8);
  for (int round = 0; round < 2000; ++round) {
    std::ranges::fill(view_.bytes(), std::byte{0});
    std::thread other([&] {
      DirtyPages pages;
      for (uint64_t i = 1; i < 64; i += 2) pages.add({i * page}, 1, *log_);
      pages.mark(*log_);
    });
    for (uint64_t i = 0; i < 64; i += 2) wrote(i * page, 1);
    other.join();
    ASSERT_EQ(marked().size(), 64U);
  }
}

TEST(DirtyLog, H127_ranges_that_wrap_or_end_behind_the_file_and_empty_ones_are_refused) {
  const UniqueFd file = test_file(8192);
  EXPECT_TRUE(DirtyLog::open(file, 8192, 0));
  EXPECT_TRUE(DirtyLog::open(file, 1, 8191));
  EXPECT_FALSE(DirtyLog::open(file, 0, 0));
  EXPECT_FALSE(DirtyLog::open(file, 8193, 0));
  EXPECT_FALSE(DirtyLog::open(file, 4097, 4096));
  EXPECT_FALSE(DirtyLog::open(file, 4096, UINT64_MAX - 4095));
  EXPECT_FALSE(DirtyLog::open(file, UINT64_MAX, 1));
  EXPECT_FALSE(DirtyLog::open(file, UINT64_MAX, 0));
  EXPECT_FALSE(DirtyLog::open(UniqueFd(), 4096, 0));
}

TEST(DirtyLog, covers_a_range_if_its_last_byte_has_a_bit) {
  const auto log = *DirtyLog::open(test_file(4096), 2, 0);
  EXPECT_TRUE(log->covers({0}, 16 * page));
  EXPECT_FALSE(log->covers({0}, 16 * page + 1));
  EXPECT_FALSE(log->covers({16 * page}, 1));
  EXPECT_FALSE(log->covers({UINT64_MAX}, 2));
  EXPECT_TRUE(log->covers(*map_of({test_region(0, page), test_region(15 * page, page)})));
  EXPECT_FALSE(log->covers(*map_of({test_region(16 * page, page)})));
}

TEST(DirtyLog, whose_file_is_truncated_is_marked_without_harm) {
  const UniqueFd file = test_file(8192);
  const auto log = *DirtyLog::open(file, 8192, 0);
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  EXPECT_TRUE(log->mark(0, 8192UL * 8 - 1));
}

FrontEndAddress address_of(const Mapping& memory) { return {reinterpret_cast<uintptr_t>(memory.data())}; }

TEST(DirtyLog, in_memory_that_is_borrowed_is_marked_there) {
  const auto memory = *Mapping::anonymous(page);
  const auto log = *DirtyLog::borrow(address_of(memory), 2);
  EXPECT_TRUE(log->covers({0}, 16 * page));
  EXPECT_FALSE(log->covers({16 * page}, 1));
  EXPECT_TRUE(log->mark(9, 100));
  EXPECT_EQ(memory.bytes()[0], std::byte{0});
  EXPECT_EQ(memory.bytes()[1], std::byte{0xfe});
  EXPECT_EQ(memory.bytes()[2], std::byte{0});
}

TEST(DirtyLog, that_is_borrowed_and_unmapped_is_marked_without_harm) {
  auto memory = *Mapping::anonymous(page);
  const auto log = *DirtyLog::borrow(address_of(memory), page);
  const FaultGuard::Work work;
  ASSERT_EQ(::munmap(memory.data(), page), 0);
  EXPECT_TRUE(log->mark(0, page * 8 - 1));
}

TEST(DirtyLog, that_is_borrowed_has_a_size_and_does_not_wrap) {
  EXPECT_FALSE(DirtyLog::borrow({page}, 0));
  EXPECT_FALSE(DirtyLog::borrow({UINT64_MAX}, 2));
}

}  // namespace
}  // namespace ringway::memory
