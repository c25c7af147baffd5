#include "ringway/tools/look_back.h"

#include <algorithm>

namespace ringway::tools {
namespace {

constexpr uint64_t most_remembered = 256;

}  // namespace

LookBack::Limits LookBack::Limits::of(uint64_t blocks, uint64_t slots) {
  const uint64_t spare = blocks > slots ? blocks - slots - 1 : 0;
  // Behind a death each slot may still bring an answer; and as many may be held anew as were held before it.
  const uint64_t held = std::min(2 * slots, spare / 2);
  return {.remembered = std::min(most_remembered, spare - 2 * held), .held = held};
}

void LookBack::acknowledge(uint64_t block) {
  if (limits_.held == 0 || !ledger_.claim(block)) return;
  held_.push_back(block);
  if (held_.size() <= limits_.held) return;
  ledger_.let_go(held_.front());
  remembered_.push_back(held_.front());
  held_.pop_front();
  if (remembered_.size() > limits_.remembered) remembered_.pop_front();
}

void LookBack::acknowledge_redone(uint64_t block) {
  if (ledger_.claim(block)) keep(block);
}

void LookBack::begin() {
  for (const uint64_t block : remembered_) {
    if (ledger_.claim(block)) keep(block);
  }
  for (const uint64_t block : held_) keep(block);
  remembered_.clear();
  held_.clear();
}

std::optional<uint64_t> LookBack::next() {
  if (to_read_.empty()) return std::nullopt;
  const uint64_t block = to_read_.back();
  to_read_.pop_back();
  ++given_;
  return block;
}

void LookBack::end() {
  for (const uint64_t block : to_read_) ledger_.let_go(block);
  for (const uint64_t block : held_) ledger_.let_go(block);
  to_read_.clear();
  held_.clear();
  remembered_.clear();
}

// A claimed block is to be read; if there are too many the oldest is not.
void LookBack::keep(uint64_t block) {
  to_read_.push_back(block);
  if (to_read_.size() <= limits_.remembered + limits_.held) return;
  ledger_.let_go(to_read_.front());
  to_read_.pop_front();
}

}  // namespace ringway::tools
