#include "ringway/device/backing/memory.h"

#include <fstream>

#include "ringway/device/backing/backing_testing.h"
#include "ringway/device/backing/null.h"

namespace ringway::backing {
namespace {

using namespace testing;

// KiB
uint64_t resident() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::stoull(line.substr(8));
  }
  return 0;
}

TEST(Memory, PagesComeWhenTouchedAndGoWhenDiscarded) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer's notes on each byte are resident memory too";
#endif
  const uint64_t before = resident();
  auto backing = value_of(open_memory(uint64_t{16} << 30));
  Queue disk(*backing, true);
  EXPECT_LT(resident(), before + 20'000);
  std::string megabyte(1 << 20, 'x');
  for (uint64_t i = 0; i < 64; ++i) ASSERT_EQ(disk.write(i << 20, megabyte), 0);
  EXPECT_GT(resident(), before + 60'000);
  for (uint64_t i = 0; i < 4; ++i) ASSERT_EQ(disk.range(Operation::discard, i << 24, 1 << 24), 0);
  EXPECT_LT(resident(), before + 20'000);
  ASSERT_EQ(disk.read(0, megabyte), 0);
  EXPECT_EQ(megabyte, std::string(1 << 20, '\0'));
}

TEST(Memory, SecurelyErasedRangesReadAsZeros) {
  auto backing = value_of(open_memory(1 << 20));
  Queue disk(*backing, true);
  ASSERT_EQ(disk.write(0, std::string(16'384, 'x')), 0);
  EXPECT_GT(backing->geometry().max_secure_erase, 0U);
  EXPECT_EQ(disk.range(Operation::secure_erase, 512, 8192), 0);
  std::string bytes(16'384, '-');
  EXPECT_EQ(disk.read(0, bytes), 0);
  EXPECT_EQ(bytes, std::string(512, 'x') + std::string(8192, '\0') + std::string(16'384 - 8704, 'x'));
}

TEST(Memory, SizesThatAreNotWholeSectorsAreRefused) {
  for (const uint64_t size : {0UL, 511UL, 513UL}) {
    EXPECT_FALSE(open_memory(size));
    EXPECT_FALSE(open_null(size));
  }
}

TEST(Memory, ASizeBeyondTheAddressSpaceIsAnError) { EXPECT_FALSE(open_memory(uint64_t{1} << 60)); }

TEST(Null, RequestsEndAtOnceAndTouchNothing) {
  auto backing = value_of(open_null(1 << 30));
  Queue disk(*backing, true);
  std::string bytes(4096, 'x');
  EXPECT_EQ(disk.write(0, bytes), 0);
  EXPECT_EQ(disk.read(0, bytes), 0);
  EXPECT_EQ(bytes, std::string(4096, 'x'));
  EXPECT_EQ(disk.range(Operation::discard, 0, 1 << 30), 0);
  EXPECT_EQ(disk.range(Operation::write_zeroes, 0, 1 << 30), 0);
  EXPECT_EQ(disk.flush(), 0);
  EXPECT_EQ(disk.read(1 << 30, bytes), -EINVAL);
}

TEST(Null, AReadOnlyOneRefusesWrites) {
  auto backing = value_of(open_null(1 << 30, true));
  Queue disk(*backing, true);
  EXPECT_EQ(disk.write(0, std::string(512, 'x')), -EROFS);
}

}  // namespace
}  // namespace ringway::backing
