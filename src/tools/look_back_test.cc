#include "ringway/tools/look_back.h"

#include <gtest/gtest.h>

#include <vector>

namespace ringway::tools {
namespace {

class LookBackTest : public testing::Test {
 protected:
  Ledger ledger{7, 0, 0, 512, 64};
  LookBack look_back{ledger, {.remembered = 4, .held = 2}};

  // What is to be read, claimed until then.
  std::vector<uint64_t> all() {
    std::vector<uint64_t> blocks;
    while (const auto block = look_back.next()) {
      EXPECT_FALSE(ledger.claim(*block));
      ledger.let_go(*block);
      blocks.push_back(*block);
    }
    return blocks;
  }
  bool is_free(uint64_t block) {
    if (!ledger.claim(block)) return false;
    ledger.let_go(block);
    return true;
  }
};

TEST_F(LookBackTest, nothing_is_read_before_a_back_end_has_died) {
  for (uint64_t block = 0; block < 5; ++block) look_back.acknowledge(block);
  EXPECT_TRUE(all().empty());
}

TEST_F(LookBackTest, what_was_acknowledged_last_is_read_first_and_once) {
  for (const uint64_t block : {1, 2, 3, 4, 1}) look_back.acknowledge(block);
  look_back.begin();
  EXPECT_EQ(all(), (std::vector<uint64_t>{1, 4, 3, 2}));
  look_back.begin();
  EXPECT_TRUE(all().empty());
  EXPECT_EQ(look_back.given(), 4U);
}

TEST_F(LookBackTest, the_newest_cannot_be_written_before_they_are_read) {
  for (uint64_t block = 0; block < 5; ++block) look_back.acknowledge(block);
  for (uint64_t block = 0; block < 5; ++block) EXPECT_EQ(is_free(block), block < 3) << block;
  look_back.begin();
  for (uint64_t block = 0; block < 5; ++block) EXPECT_FALSE(is_free(block)) << block;
}

TEST_F(LookBackTest, of_many_the_last_are_remembered) {
  for (uint64_t block = 0; block < 11; ++block) look_back.acknowledge(block);
  look_back.begin();
  EXPECT_EQ(all(), (std::vector<uint64_t>{10, 9, 8, 7, 6, 5}));
}

TEST_F(LookBackTest, what_is_written_just_now_is_read_when_that_has_ended) {
  for (uint64_t block = 0; block < 4; ++block) look_back.acknowledge(block);
  ASSERT_TRUE(ledger.claim(1));
  look_back.begin();
  EXPECT_EQ(all(), (std::vector<uint64_t>{3, 2, 0}));
  ledger.wrote(1, true);
  look_back.acknowledge_redone(1);
  EXPECT_EQ(all(), (std::vector<uint64_t>{1}));
}

TEST_F(LookBackTest, another_death_in_between_adds_to_what_is_left_but_not_without_end) {
  for (uint64_t life = 0; life < 5; ++life) {
    for (uint64_t i = 0; i < 4; ++i) look_back.acknowledge(life * 4 + i);
    look_back.begin();
  }
  EXPECT_EQ(all(), (std::vector<uint64_t>{19, 18, 17, 16, 15, 14}));
  for (uint64_t block = 0; block < 20; ++block) EXPECT_TRUE(is_free(block)) << block;
}

TEST_F(LookBackTest, what_is_not_read_is_let_go) {
  for (uint64_t block = 0; block < 5; ++block) look_back.acknowledge(block);
  look_back.begin();
  for (uint64_t block = 5; block < 8; ++block) look_back.acknowledge(block);
  look_back.end();
  for (uint64_t block = 0; block < 8; ++block) EXPECT_TRUE(is_free(block)) << block;
  look_back.begin();
  EXPECT_TRUE(all().empty());
}

TEST_F(LookBackTest, what_it_claims_leaves_a_block_for_every_slot_and_one_more) {
  for (const uint64_t slots : {1, 8, 32}) {
    for (uint64_t blocks = 1; blocks < 2000; ++blocks) {
      const auto limits = LookBack::Limits::of(blocks, slots);
      const uint64_t claims = limits.remembered + 2 * limits.held;
      EXPECT_TRUE(claims == 0 || claims + slots < blocks) << blocks;
      EXPECT_TRUE(blocks < 1000 || (limits.remembered == 256 && limits.held == 2 * slots)) << blocks;
    }
  }
}

}  // namespace
}  // namespace ringway::tools
