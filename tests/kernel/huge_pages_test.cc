// Memory in huge pages that is truncated under us: pages change as a whole there. It needs huge pages, which
// this guest has and a test's machine need not have.
#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "ringway/base/mapping.h"
#include "ringway/memory/fault_guard.h"
#include "ringway/memory/map.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::memory {
namespace {

constexpr uint64_t huge = 2 << 20;

class HugePages : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(fd_);
    ASSERT_EQ(::ftruncate(fd_.get(), 2 * huge), 0);
  }
  void truncate(uint64_t size) const { ASSERT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0); }

  UniqueFd fd_{::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB)};
};

TEST_F(HugePages, a_mapping_of_a_file_that_is_truncated_reads_as_zeros) {
  const Mapping mapping = Mapping::of_file(fd_.get(), 2 * huge, 0).value();
  const FaultGuard guard(mapping.data(), mapping.size());
  std::memset(mapping.data(), 0x55, mapping.size());
  truncate(huge);
  EXPECT_EQ(load<uint8_t>(mapping.data() + huge + 4096), 0);
  EXPECT_TRUE(guard.broken());
  store<uint8_t>(mapping.data() + 2 * huge - 1, 1);
}

// A front-end's region need not begin or end with a page of its file.
TEST_F(HugePages, so_does_a_region_that_is_a_part_of_them) {
  const auto region = Region::open(
      {.guest = {uint64_t{1} << 32}, .size = huge, .front_end = {0x7000'0000'0000}, .file_offset = 4096},
      fd_.duplicate().value());
  ASSERT_TRUE(region) << region.error().to_string();
  std::memset((*region)->data(), 0x55, huge);
  truncate(0);
  EXPECT_EQ(load<uint8_t>((*region)->data()), 0);
  EXPECT_EQ(load<uint8_t>((*region)->data() + huge - 1), 0);
}

// What a program has lent is its own: of its memory only the page that was touched becomes another.
TEST_F(HugePages, of_borrowed_memory_one_huge_page_is_replaced) {
  const Mapping mapping = Mapping::of_file(fd_.get(), 2 * huge, 0).value();
  const FaultGuard guard = FaultGuard::of_borrowed(mapping.data(), mapping.size());
  const FaultGuard::Work work;
  std::memset(mapping.data(), 0x55, mapping.size());
  truncate(huge);
  EXPECT_EQ(load<uint8_t>(mapping.data() + huge), 0);
  EXPECT_TRUE(guard.broken());
  EXPECT_EQ(load<uint8_t>(mapping.data() + huge - 1), 0x55);
}

}  // namespace
}  // namespace ringway::memory
