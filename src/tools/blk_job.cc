#include "ringway/tools/blk_job.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "ringway/memory/shared_bytes.h"

namespace ringway::tools {
namespace {

// A number below `limit`, by the upper bits of `number`.
uint64_t scale(uint64_t number, uint64_t limit) {
  __extension__ using wide = unsigned __int128;
  return static_cast<uint64_t>(wide{number} * limit >> 64);
}

}  // namespace

void Tally::clear() {
  for (Side* side : {&reads, &writes}) {
    side->latency.clear();
    side->failed = 0;
  }
  no_status = overlong = short_used = kicks = sleeps = turns = 0;
  first_bad_status = 0;
  nanoseconds = 0;
}

void Tally::add(const Tally& other) {
  reads.latency.add(other.reads.latency);
  writes.latency.add(other.writes.latency);
  reads.failed += other.reads.failed;
  writes.failed += other.writes.failed;
  if (first_bad_status == 0) first_bad_status = other.first_bad_status;
  no_status += other.no_status;
  overlong += other.overlong;
  short_used += other.short_used;
  kicks += other.kicks;
  sleeps += other.sleeps;
  turns += other.turns;
  nanoseconds = std::max(nanoseconds, other.nanoseconds);
}

BlkJob::BlkJob(BlkDriver& driver, const Work& work, Ledger* ledger)
    : driver_(driver),
      work_(work),
      ledger_(ledger),
      turn_limit_(std::max(driver.slots() / 2U, 1U)),
      requests_(driver.slots()),
      copy_(work.block_bytes),
      state_(work.seed) {
  if (ledger != nullptr && work.looks_back)
    look_back_.emplace(*ledger, LookBack::Limits::of(work.blocks, driver.slots()));
}

void BlkJob::begin(Phase phase, int64_t now) {
  if (postponed_ && ledger_ != nullptr) ledger_->let_go(postponed_->block);
  if (look_back_ && phase == Phase::check) look_back_->end();  // all blocks are read then
  postponed_.reset();
  phase_ = phase;
  cursor_ = 0;
  exhausted_ = false;
  clear(now);
}

void BlkJob::clear(int64_t now) {
  tally_.clear();
  begin_ = now;
  kicks_before_ = driver_.kicks();
}

void BlkJob::count(int64_t now) {
  counted_ = tally_;
  counted_.kicks = driver_.kicks() - kicks_before_;
  counted_.nanoseconds = now - begin_;
}

Result<bool> BlkJob::turn(bool stop) {
  int64_t now = 0;
  uint64_t taken = 0;
  while (taken < turn_limit_) {
    const auto next = driver_.take();
    if (!next) return std::unexpected(next.error());
    const std::optional<BlkDone>& done = *next;
    if (!done) break;
    if (taken++ == 0) now = now_ns();
    finish(*done, now);
  }
  if (taken > 0) {
    ++tally_.turns;
    finished_.store(finished_.load(std::memory_order_relaxed) + taken, std::memory_order_relaxed);
  } else if (driver_.in_flight() > 0) {
    return false;  // nothing has changed since the last turn
  }
  if (stop || exhausted_) return taken > 0;
  fill_up(taken > 0 ? now : now_ns());
  driver_.publish();
  return true;
}

void BlkJob::finish(const BlkDone& done, int64_t now) {
  const Request& request = requests_[done.slot];
  const bool success = done.status == VIRTIO_BLK_S_OK;
  Tally::Side& side = request.is_write ? tally_.writes : tally_.reads;
  if (success) [[likely]] {
    side.latency.record(static_cast<uint64_t>(std::max<int64_t>(now - request.started, 0)));
    tally_.short_used += done.short_used ? 1 : 0;
  } else {
    if (tally_.failed() == 0) tally_.first_bad_status = done.status;
    ++side.failed;
    tally_.no_status += done.status == BlkDriver::no_status ? 1 : 0;
  }
  tally_.overlong += done.overlong ? 1 : 0;
  if (ledger_ != nullptr) account(request, done.slot, success);
  driver_.release(done.slot);
}

void BlkJob::account(const Request& request, uint16_t slot, bool success) {
  if (request.is_write) {
    account_write(request, success);
  } else if (success) {
    memory::copy_out(copy_.data(), driver_.data(slot).data(), copy_.size());
    ledger_->check(request.block, copy_);
  } else {
    ledger_->let_go(request.block);
  }
}

void BlkJob::account_write(const Request& request, bool success) {
  ledger_->wrote(request.block, success);
  if (!success || !look_back_) return;
  if (request.death == death_) {
    look_back_->acknowledge(request.block);
  } else {
    look_back_->acknowledge_redone(request.block);
  }
}

void BlkJob::fill_up(int64_t now) {
  while (const auto slot = driver_.acquire()) {
    const auto choice = postponed_ ? std::exchange(postponed_, std::nullopt) : choose();
    if (choice && start(*slot, *choice, now)) continue;
    driver_.release(*slot);
    postponed_ = choice;
    return;
  }
}

bool BlkJob::start(uint16_t slot, const Choice& choice, int64_t now) {
  requests_[slot] = {.block = choice.block, .started = now, .death = death_, .is_write = choice.is_write};
  const uint64_t sector = (work_.offset + choice.block * work_.block_bytes) / 512;
  const std::span<std::byte> data = driver_.data(slot).first(work_.block_bytes);
  if (ledger_ != nullptr && !choice.is_write) scrub(data);
  if (!choice.is_write) return driver_.read(slot, sector, work_.block_bytes);
  if (ledger_ != nullptr) ledger_->prepare(choice.block, data);
  return driver_.write(slot, sector, work_.block_bytes);
}

std::optional<BlkJob::Choice> BlkJob::choose() {
  if (phase_ == Phase::check) return choose_in_sweep();
  if (const auto block = choose_to_look_back()) return Choice{.block = *block};
  if (phase_ == Phase::fill) return choose_in_sweep();
  const uint64_t number = random();
  const bool is_write = (number & 0xffff) * 100 >> 16 >= work_.read_percent;
  uint64_t block = work_.random ? scale(number, work_.blocks) : cursor_++ % work_.blocks;
  // There are more blocks than slots, so one is free.
  while (!claim(block)) block = (block + 1) % work_.blocks;
  return Choice{.block = block, .is_write = is_write};
}

std::optional<BlkJob::Choice> BlkJob::choose_in_sweep() {
  const bool is_fill = phase_ == Phase::fill;
  while (!is_fill && cursor_ < work_.blocks && !ledger_->was_written(cursor_)) ++cursor_;
  exhausted_ = cursor_ == work_.blocks;
  if (exhausted_) return std::nullopt;
  const bool claimed = claim(cursor_);
  assert(claimed);  // every block once, after everything before has come back
  return Choice{.block = cursor_++, .is_write = is_fill};
}

// Every other choice, as long as there is anything.
std::optional<uint64_t> BlkJob::choose_to_look_back() {
  if (!look_back_) return std::nullopt;
  if (const uint32_t deaths = deaths_.load(std::memory_order_relaxed); deaths != death_) [[unlikely]] {
    death_ = deaths;
    look_back_->begin();
  }
  looks_back_now_ = !looks_back_now_;
  return looks_back_now_ ? look_back_->next() : std::nullopt;
}

// SplitMix64.
uint64_t BlkJob::random() {
  state_ += 0x9e37'79b9'7f4a'7c15;
  uint64_t value = state_;
  value = (value ^ value >> 30) * 0xbf58'476d'1ce4'e5b9;
  value = (value ^ value >> 27) * 0x94d0'49bb'1331'11eb;
  return value ^ value >> 31;
}

bool BlkJob::prepare_to_sleep() {
  if (driver_.enable_calls()) return true;
  ++tally_.sleeps;
  return false;
}

}  // namespace ringway::tools
