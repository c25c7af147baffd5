#include "ringway/user/stop.h"

#include <gtest/gtest.h>

namespace ringway::user {
namespace {

TEST(Stop, is_requested_once_and_for_ever) {
  auto stop = Stop::make();
  ASSERT_TRUE(stop);
  EXPECT_FALSE((*stop)->requested());
  (*stop)->request();
  EXPECT_TRUE((*stop)->requested());
  (*stop)->request();
  EXPECT_TRUE((*stop)->requested());
}

}  // namespace
}  // namespace ringway::user
