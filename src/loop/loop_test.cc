#include "ringway/loop/loop.h"

#include <gtest/gtest.h>
namespace ringway::loop {
TEST(Loop, RunsATask) {
  auto l = Loop::start({});
  ASSERT_TRUE(l);
  int n = 0;
  (*l)->run([&] { n = 1; });
  EXPECT_EQ(n, 1);
  EXPECT_TRUE((*l)->uses_io_uring());
}
}  // namespace ringway::loop
