#include "ringway/ring/predecessor.h"

#include <gtest/gtest.h>

#include "ringway/ring/rig_test.h"

namespace ringway::ring::test {
namespace {

// A ring of four whose device half answers what it likes and is gone then.
class Predecessor : public testing::TestWithParam<bool> {
 protected:
  void add(unsigned count = 1) {
    const std::vector<Buffer> readable{{.address = {buffer_}, .length = 8}};
    for (unsigned i = 0; i < count; ++i) ASSERT_TRUE(rig_.front.add(readable, {}));
    (void)rig_.front.publish();
  }
  void pop(unsigned count = 1) {
    for (unsigned i = 0; i < count; ++i) taken_.push_back(rig_.device.pop());
  }
  // The one that has been taken for the so many longest.
  void answer(size_t which) {
    rig_.device.push_used(std::move(taken_[which]), 0);
    taken_.erase(taken_.begin() + static_cast<ptrdiff_t>(which));
    (void)rig_.device.publish();
    while (rig_.front.take_used()) continue;
  }
  // Seen by the next one, who begins where the used ring ends.
  uint32_t doubtful() {
    for (Chain& chain : taken_) rig_.device.abandon(std::move(chain));
    taken_.clear();
    RingConfig config = rig_.layout.ring_config();
    const RingBase base = rig_.device.base();
    config.base = {
        .avail = base.used, .used = base.used, .avail_wrap = base.used_wrap, .used_wrap = base.used_wrap};
    return doubtful_chains(config);
  }

  Guest guest_{1 << 20};
  uint64_t buffer_ = guest_.allocate(64, 64);
  Rig rig_{guest_, {.size = 4, .format = {.packed = GetParam()}}};
  std::vector<Chain> taken_;
};

TEST_P(Predecessor, a_ring_that_was_never_used_is_beyond_doubt) {
  add(4);
  pop(2);
  EXPECT_EQ(doubtful(), 0U);
}

TEST_P(Predecessor, a_ring_in_which_nothing_waits_is_beyond_doubt) {
  add(3);
  pop(3);
  answer(1);
  answer(0);
  answer(0);
  EXPECT_EQ(doubtful(), 0U);
}

TEST_P(Predecessor, what_waits_behind_answers_out_of_order_is_doubtful) {
  add(3);
  pop(3);
  answer(1);
  answer(1);  // the first will never be answered, and the last is done again
  EXPECT_EQ(doubtful(), 1U);
}

TEST_P(Predecessor, a_split_ring_shows_that_answers_came_in_order) {
  for (unsigned round = 0; round < 20; ++round) {
    add(2);
    pop(2);
    answer(0);
    answer(0);
  }
  add(3);
  pop(2);
  answer(0);
  EXPECT_EQ(doubtful(), GetParam() ? 2U : 0U) << "a packed ring shows nothing";
}

TEST_P(Predecessor, a_full_ring_shows_nothing) {
  add(1);
  pop(1);
  answer(0);
  add(4);
  EXPECT_EQ(doubtful(), 4U);
}

TEST(PredecessorHostile, indices_that_are_too_far_apart_are_for_others_to_refuse) {
  Guest guest(1 << 20);
  HostileSplit split(guest, {.size = 4});
  split.used()->idx = 3;
  split.avail()->idx = 8;
  EXPECT_EQ(doubtful_chains(split.layout.ring_config()), 0U);
}

INSTANTIATE_TEST_SUITE_P(Formats, Predecessor, testing::Values(false, true),
                         [](const auto& instance) { return instance.param ? "packed" : "split"; });

}  // namespace
}  // namespace ringway::ring::test
