// A ring that is to stop for good: whatever was popped ends, so that a device can be stopped.
#include <gtest/gtest.h>

#include <vector>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::Guest;
using test::Rig;
using test::Shape;

// Of four chains the third is used, the first is abandoned, the others are used or abandoned.
void stop_with_gaps(const Shape& shape) {
  Guest guest(uint64_t{1} << 20);
  const uint64_t data = guest.allocate(4096, 4096);
  Rig rig(guest, shape);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(rig.front.add({}, {{.address = {data}, .length = 16}}));
  }
  rig.front.publish();
  std::vector<Chain> chains;
  for (int i = 0; i < 4; ++i) {
    chains.push_back(rig.device.pop());
    ASSERT_TRUE(chains.back());
  }
  rig.device.push_used(std::move(chains[2]), 0);
  rig.device.abandon(std::move(chains[0]));
  rig.device.push_used(std::move(chains[3]), 0);
  rig.device.abandon(std::move(chains[1]));
  EXPECT_EQ(rig.device.in_flight(), 0U);
}

TEST(AbandonedChains, leave_nothing_in_flight) {
  stop_with_gaps({.size = 8});
  stop_with_gaps({.size = 7, .format = {.packed = true}});
}

// A chain that was used out of order waited for an abandoned one for ever, and with it whoever stopped the
// ring.
TEST(AbandonedChains, leave_nothing_in_flight_that_waits_for_its_turn) {
  stop_with_gaps({.size = 8, .format = {.in_order = true}});
  stop_with_gaps({.size = 7, .format = {.packed = true, .in_order = true}});
}

}  // namespace
}  // namespace ringway::ring
