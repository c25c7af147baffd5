// Ledger: what must be on the disk, block by block, as far as one queue has written it. Owned by one thread.
// A block is claimed while a request for it is in flight, so that no two requests can race for its contents.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ringway/device/backing/witness.h"
#include "ringway/tools/pattern.h"

namespace ringway::tools {

struct Mismatch {
  Diagnosis finding;
  uint64_t expected_generation = 0;
  uint64_t queue = 0;
};

// What came of all checks.
struct Account {
  static constexpr size_t kept = 8;

  uint64_t written = 0;  // blocks whose write was acknowledged
  uint64_t checked = 0;  // blocks read and compared
  uint64_t unsure = 0;   // blocks read after a failed write: either content is right
  std::array<uint64_t, verdict_count> verdicts{};  // of the checked ones
  std::array<Mismatch, kept> first{};              // of the wrong ones

  [[nodiscard]] uint64_t wrong() const { return checked - verdicts[static_cast<size_t>(Verdict::right)]; }
  void add(const Account& other);
};

class Ledger {
 public:
  // `blocks` of `block_bytes` each, from byte `offset` of the disk; `queue` is told in mismatches.
  Ledger(uint64_t seed, uint64_t queue, uint64_t offset, uint32_t block_bytes, uint64_t blocks);

  // Acknowledged writes are told to it from now on. It outlives the ledger.
  void set_testimony(backing::Testimony* testimony) { testimony_ = testimony; }

  // False if a request for it is in flight.
  bool claim(uint64_t block);
  // Fills `to` with what the next write of a claimed block is to write.
  void prepare(uint64_t block, std::span<std::byte> to);
  // The write of a claimed block ended, which ends the claim.
  void wrote(uint64_t block, bool success);
  // The read of a claimed block ended; `bytes` is what came. Ends the claim.
  void check(uint64_t block, std::span<const std::byte> bytes);
  // The claim ends and nothing was learnt: a failed read.
  void let_go(uint64_t block) { blocks_[block].claimed = false; }
  [[nodiscard]] bool was_written(uint64_t block) const { return blocks_[block].generation > 0; }
  [[nodiscard]] const Account& account() const { return account_; }

 private:
  struct Block {
    uint64_t generation : 62 = 0;  // of the last acknowledged write; 0: none
    uint64_t claimed : 1 = 0;
    uint64_t unsure : 1 = 0;  // a later write failed
  };
  [[nodiscard]] Tag tag(uint64_t block, uint64_t generation) const {
    return {.seed = seed_, .offset = offset_ + block * block_bytes_, .generation = generation};
  }

  const uint64_t seed_;
  const uint64_t queue_;
  const uint64_t offset_;
  const uint32_t block_bytes_;
  std::vector<Block> blocks_;
  Account account_;
  backing::Testimony* testimony_ = nullptr;
};

}  // namespace ringway::tools
