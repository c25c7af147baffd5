#include "ringway/tools/ledger.h"

#include <algorithm>
#include <cassert>

namespace ringway::tools {

void Account::add(const Account& other) {
  uint64_t free_at = std::min<uint64_t>(wrong(), kept);
  for (uint64_t i = 0; i < std::min<uint64_t>(other.wrong(), kept) && free_at < kept; ++i) {
    first[free_at++] = other.first[i];
  }
  written += other.written;
  checked += other.checked;
  unsure += other.unsure;
  for (size_t i = 0; i < verdict_count; ++i) verdicts[i] += other.verdicts[i];
}

Ledger::Ledger(uint64_t seed, uint64_t queue, uint64_t offset, uint32_t block_bytes, uint64_t blocks)
    : seed_(seed), queue_(queue), offset_(offset), block_bytes_(block_bytes), blocks_(blocks) {}

bool Ledger::claim(uint64_t block) {
  if (blocks_[block].claimed) return false;
  blocks_[block].claimed = true;
  return true;
}

void Ledger::prepare(uint64_t block, std::span<std::byte> to) {
  assert(blocks_[block].claimed && to.size() == block_bytes_);
  fill(to, tag(block, blocks_[block].generation + 1));
}

void Ledger::wrote(uint64_t block, bool success) {
  Block& entry = blocks_[block];
  assert(entry.claimed);
  entry.claimed = false;
  entry.unsure = !success;
  // A failed write may have written all, part or nothing; the next one must not look like it.
  ++entry.generation;
  if (!success) return;
  ++account_.written;
  if (testimony_ != nullptr) testimony_->acknowledge(offset_ + block * block_bytes_, entry.generation);
}

void Ledger::check(uint64_t block, std::span<const std::byte> bytes) {
  Block& entry = blocks_[block];
  assert(entry.claimed && bytes.size() == block_bytes_);
  entry.claimed = false;
  if (entry.unsure || entry.generation == 0) {
    ++account_.unsure;
    return;
  }
  const Diagnosis finding = examine(bytes, tag(block, entry.generation));
  const uint64_t wrong = account_.wrong();
  ++account_.checked;
  ++account_.verdicts[static_cast<size_t>(finding.verdict)];
  if (finding.verdict == Verdict::right || wrong >= Account::kept) return;
  account_.first[wrong] = {.finding = finding, .expected_generation = entry.generation, .queue = queue_};
}

}  // namespace ringway::tools
