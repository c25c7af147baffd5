#include "ringway/preload/device_node.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

namespace ringway::preload {
namespace {

TEST(DeviceNode, stat_sees_a_character_device_of_whoever_asks) {
  struct stat status{};
  struct stat64 status64{};
  ASSERT_EQ(describe_node(&status), 0);
  ASSERT_EQ(describe_node(&status64), 0);
  EXPECT_EQ(status.st_mode, S_IFCHR | 0600U);
  EXPECT_EQ(status.st_rdev, makedev(10, 238));
  EXPECT_EQ(status.st_uid, ::geteuid());
  EXPECT_EQ(status64.st_mode, status.st_mode);
  EXPECT_EQ(status64.st_rdev, status.st_rdev);
  EXPECT_EQ(describe_node(static_cast<struct stat*>(nullptr)), -EFAULT);
}

TEST(DeviceNode, statx_sees_the_same) {
  struct statx status{};
  ASSERT_EQ(describe_node(&status), 0);
  EXPECT_EQ(status.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
  EXPECT_EQ(status.stx_mode, S_IFCHR | 0600U);
  EXPECT_EQ(makedev(status.stx_rdev_major, status.stx_rdev_minor), makedev(10, 238));
  EXPECT_EQ(describe_node(static_cast<struct statx*>(nullptr)), -EFAULT);
}

TEST(DeviceNode, it_may_be_read_and_written_and_not_be_run) {
  for (const int mode : {F_OK, R_OK, W_OK, R_OK | W_OK}) EXPECT_EQ(access_node(mode), 0) << mode;
  EXPECT_EQ(access_node(R_OK | X_OK), -EACCES);
  EXPECT_EQ(access_node(8), -EINVAL);
}

}  // namespace
}  // namespace ringway::preload
