#include "ringway/loop/patience.h"

#include <gtest/gtest.h>

namespace ringway::loop {
namespace {

using namespace std::chrono_literals;

TEST(Patience, GrowsToItsMaximumWhenWorkComesSoonAfterParking) {
  Patience patience;
  for (int pause = 0; pause < 4; ++pause) patience.learn(30us);
  EXPECT_EQ(patience.window(), Patience::max_window);
}

TEST(Patience, FallsToZeroAfterAFewLongPauses) {
  Patience patience(Patience::max_window);
  patience.learn(5ms);
  EXPECT_LT(patience.window(), Patience::max_window);
  for (int pause = 0; pause < 3; ++pause) patience.learn(5ms);
  EXPECT_EQ(patience.window(), 0ns);
}

TEST(Patience, ComesBackFromZero) {
  Patience patience(0ns);
  patience.learn(10us);
  EXPECT_EQ(patience.window(), Patience::first_window);
}

TEST(Patience, OneLongPauseDoesNotUndoABurst) {
  Patience patience(Patience::max_window);
  patience.learn(1s);
  EXPECT_GE(patience.window(), Patience::first_window);
}

}  // namespace
}  // namespace ringway::loop
