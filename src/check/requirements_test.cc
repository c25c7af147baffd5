#include "ringway/check/requirements.h"

#include <gtest/gtest.h>

namespace ringway::check {
namespace {

TEST(Requirements, are_numbered_without_gaps_and_each_is_seen_or_says_why_not) {
  uint16_t expected = 1;
  for (const Requirement& one : requirements()) {
    EXPECT_EQ(one.number, expected++);
    EXPECT_TRUE(one.back_end.on_frames || one.back_end.on_requests || *one.back_end.reason != 0)
        << one.number;
    EXPECT_TRUE(one.front_end.judge || *one.front_end.reason != 0) << one.number;
    EXPECT_NE(*one.sentence, 0) << one.number;
    EXPECT_NE(*one.section, 0) << one.number;
  }
  EXPECT_EQ(requirements().size(), 146U);
}

}  // namespace
}  // namespace ringway::check
