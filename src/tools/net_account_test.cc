#include "ringway/tools/net_account.h"

#include <gtest/gtest.h>

namespace ringway::tools {
namespace {

using Kind = Arrivals::Kind;

TEST(Arrivals, frames_in_order_are_in_order_also_across_a_gap) {
  Arrivals arrivals;
  for (const uint64_t sequence : {0U, 1U, 2U, 5U, 6U, 1000U})
    EXPECT_EQ(arrivals.see(sequence), Kind::in_order);
}

TEST(Arrivals, a_frame_that_comes_after_a_later_one_is_late_and_then_a_duplicate) {
  Arrivals arrivals;
  EXPECT_EQ(arrivals.see(3), Kind::in_order);
  EXPECT_EQ(arrivals.see(1), Kind::late);
  EXPECT_EQ(arrivals.see(1), Kind::duplicate);
  EXPECT_EQ(arrivals.see(3), Kind::duplicate);
  EXPECT_EQ(arrivals.see(0), Kind::late);
  EXPECT_EQ(arrivals.see(4), Kind::in_order);
}

TEST(Arrivals, what_is_remembered_of_a_number_ends_where_another_takes_its_place) {
  Arrivals arrivals;
  EXPECT_EQ(arrivals.see(7), Kind::in_order);
  EXPECT_EQ(arrivals.see(7 + Arrivals::memory), Kind::in_order);
  EXPECT_EQ(arrivals.see(8), Kind::late);       // forgotten with the gap, and just young enough
  EXPECT_EQ(arrivals.see(7), Kind::duplicate);  // its place has been taken
  EXPECT_EQ(arrivals.see(6), Kind::duplicate);  // too old to know
  EXPECT_EQ(arrivals.see(3 * Arrivals::memory), Kind::in_order);
  EXPECT_EQ(arrivals.see(3 * Arrivals::memory - 1), Kind::late);
}

TEST(NetAccount, what_has_come_twice_does_not_make_up_for_what_is_lost) {
  NetAccount account{.sent = 10, .received = 10, .duplicates = 2};
  EXPECT_EQ(account.lost(), 2U);
  EXPECT_FALSE(account.flawless());
  account.add({.sent = 5, .received = 7});
  EXPECT_EQ(account.lost(), 0U);
}

TEST(NetAccount, frames_of_others_are_no_flaw) {
  const NetAccount account{.sent = 3, .received = 3, .foreign = 9};
  EXPECT_TRUE(account.flawless());
  EXPECT_FALSE((NetAccount{.sent = 3, .received = 3, .changed = 1}.flawless()));
  EXPECT_FALSE((NetAccount{.sent = 3, .received = 3, .late = 1}.flawless()));
}

}  // namespace
}  // namespace ringway::tools
