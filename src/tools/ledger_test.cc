#include "ringway/tools/ledger.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

namespace ringway::tools {
namespace {

constexpr uint32_t block_bytes = 1024;

// A disk that does what it is told, or not.
class LedgerTest : public testing::Test {
 protected:
  std::vector<std::byte> buffer = std::vector<std::byte>(block_bytes);
  std::map<uint64_t, std::vector<std::byte>> disk;
  Ledger ledger{7, 3, 1 << 20, block_bytes, 16};

  void write(uint64_t block, bool success = true) {
    ASSERT_TRUE(ledger.claim(block));
    ledger.prepare(block, buffer);
    if (success) disk[block] = buffer;
    ledger.wrote(block, success);
  }
  void read(uint64_t block) {
    ASSERT_TRUE(ledger.claim(block));
    buffer = disk.contains(block) ? disk[block] : std::vector<std::byte>(block_bytes);
    ledger.check(block, buffer);
  }
  uint64_t count(Verdict verdict) { return ledger.account().verdicts[static_cast<size_t>(verdict)]; }
};

TEST_F(LedgerTest, WhatWasWrittenLastIsRight) {
  write(2);
  write(2);
  read(2);
  EXPECT_EQ(ledger.account().written, 2U);
  EXPECT_EQ(ledger.account().checked, 1U);
  EXPECT_EQ(ledger.account().wrong(), 0U);
}

TEST_F(LedgerTest, AWriteThatWasAcknowledgedAndLostIsCounted) {
  write(5);
  const auto before = disk[5];
  write(5);
  disk[5] = before;
  read(5);
  EXPECT_EQ(count(Verdict::stale), 1U);
  const Mismatch& mismatch = ledger.account().first[0];
  EXPECT_EQ(mismatch.expected_generation, 2U);
  EXPECT_EQ(mismatch.finding.found.generation, 1U);
  EXPECT_EQ(mismatch.finding.offset, (1U << 20) + 5 * block_bytes);
  EXPECT_EQ(mismatch.queue, 3U);
}

TEST_F(LedgerTest, BlocksThatWereSwappedAreMisplaced) {
  write(1);
  write(2);
  std::swap(disk[1], disk[2]);
  read(1);
  read(2);
  EXPECT_EQ(count(Verdict::misplaced), 2U);
}

TEST_F(LedgerTest, EveryMismatchIsCountedAndTheFirstAreKept) {
  for (uint64_t block = 0; block < 16; ++block) write(block);
  disk.clear();
  for (uint64_t block = 0; block < 16; ++block) read(block);
  EXPECT_EQ(count(Verdict::zeros), 16U);
  EXPECT_EQ(ledger.account().wrong(), 16U);
  EXPECT_EQ(ledger.account().first[7].finding.offset, (1U << 20) + 7 * block_bytes);
}

TEST_F(LedgerTest, AfterAFailedWriteNothingIsSureUntilTheNext) {
  write(4);
  write(4, false);
  read(4);
  EXPECT_EQ(ledger.account().unsure, 1U);
  EXPECT_EQ(ledger.account().checked, 0U);
  write(4);
  read(4);
  EXPECT_EQ(ledger.account().checked, 1U);
  EXPECT_EQ(ledger.account().wrong(), 0U);
}

TEST_F(LedgerTest, AFailedWriteThatArrivedLateIsNotTakenForTheNextOne) {
  ASSERT_TRUE(ledger.claim(4));
  ledger.prepare(4, buffer);
  const auto late = buffer;
  ledger.wrote(4, false);
  write(4);
  disk[4] = late;
  read(4);
  EXPECT_EQ(count(Verdict::stale), 1U);
}

TEST_F(LedgerTest, ABlockInFlightCannotBeClaimedAgain) {
  ASSERT_TRUE(ledger.claim(9));
  EXPECT_FALSE(ledger.claim(9));
  ledger.let_go(9);
  EXPECT_TRUE(ledger.claim(9));
}

TEST_F(LedgerTest, AccountsOfQueuesAddUpWithTheFirstMismatchesOfBoth) {
  write(1);
  disk.clear();
  read(1);
  Account sum = ledger.account();
  sum.add(ledger.account());
  EXPECT_EQ(sum.written, 2U);
  EXPECT_EQ(sum.wrong(), 2U);
  EXPECT_EQ(sum.first[1].finding.offset, sum.first[0].finding.offset);
  EXPECT_NE(sum.first[1].expected_generation, 0U);
}

}  // namespace
}  // namespace ringway::tools
