// BlkJob: the requests of one queue: chosen, kept in flight, timed, checked. Owned by the thread that drives
// it; only finished() and look_back() may be called by others. A turn takes what has come back, starts as
// many anew, and shows them to the device once.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/tools/blk_driver.h"
#include "ringway/tools/histogram.h"
#include "ringway/tools/job.h"
#include "ringway/tools/ledger.h"
#include "ringway/tools/look_back.h"

namespace ringway::tools {

// What one queue does.
struct Work {
  bool random = true;
  unsigned read_percent = 100;
  uint32_t block_bytes = 4096;
  uint64_t offset = 0;  // bytes: the part of the disk that is used
  uint64_t blocks = 0;
  uint64_t seed = 0;
  bool looks_back = false;  // with a ledger: after a back-end has died
};

// What was counted since it was cleared.
struct Tally {
  struct Side {
    Histogram latency;    // nanoseconds, of requests that succeeded
    uint64_t failed = 0;  // requests with another status
    [[nodiscard]] uint64_t done() const { return latency.count(); }
  };
  Side reads;
  Side writes;
  uint64_t no_status = 0;   // of the failed ones: the device has written none
  uint64_t overlong = 0;    // requests with a used length larger than their buffers
  uint64_t short_used = 0;  // successful ones with a used length smaller than their data
  uint8_t first_bad_status = 0;
  uint64_t kicks = 0;
  uint64_t sleeps = 0;
  uint64_t turns = 0;       // in which something had come back
  int64_t nanoseconds = 0;  // the time that was counted

  [[nodiscard]] uint64_t failed() const { return reads.failed + writes.failed; }
  void add(const Tally& other);
  void clear();
};

class BlkJob final : public Job {
 public:
  // `ledger`: null without verification; else the blocks are those of `work`. All slots of `driver` are kept
  // in flight.
  BlkJob(BlkDriver& driver, const Work& work, Ledger* ledger);

  void begin(Phase phase, int64_t now) override;
  void clear(int64_t now) override;
  void count(int64_t now) override;
  Result<bool> turn(bool stop) override;
  [[nodiscard]] bool at_rest(bool stop) const override {
    return driver_.in_flight() == 0 && (stop || exhausted_);
  }
  [[nodiscard]] bool prepare_to_sleep() override;
  void wake_up() override { driver_.disable_calls(); }
  [[nodiscard]] uint64_t in_flight() const override { return driver_.in_flight(); }
  [[nodiscard]] uint64_t finished() const override { return finished_.load(std::memory_order_relaxed); }

  // The back-end has died, and another is to come: what it acknowledged last is read again while the work
  // goes on, if that was asked for. Any thread.
  void look_back() { deaths_.fetch_add(1, std::memory_order_relaxed); }
  // Blocks that were chosen for that. At rest.
  [[nodiscard]] uint64_t looked_back() const { return look_back_ ? look_back_->given() : 0; }

  // As count() has left it.
  [[nodiscard]] const Tally& counted() const { return counted_; }
  [[nodiscard]] BlkDriver& driver() { return driver_; }

 private:
  struct Request {
    uint64_t block = 0;
    int64_t started = 0;  // nanoseconds, monotonic
    uint32_t death = 0;   // how many back-ends had died when it was started
    bool is_write = false;
  };
  struct Choice {
    uint64_t block = 0;
    bool is_write = false;
  };

  void finish(const BlkDone& done, int64_t now);
  void account(const Request& request, uint16_t slot, bool success);
  void account_write(const Request& request, bool success);
  void fill_up(int64_t now);
  [[nodiscard]] bool start(uint16_t slot, const Choice& choice, int64_t now);
  std::optional<Choice> choose();
  std::optional<Choice> choose_in_sweep();
  std::optional<uint64_t> choose_to_look_back();
  bool claim(uint64_t block) { return ledger_ == nullptr || ledger_->claim(block); }
  uint64_t random();

  BlkDriver& driver_;
  const Work work_;
  Ledger* const ledger_;
  std::optional<LookBack> look_back_;
  // Half of all: while we work on some requests the device has others.
  const uint32_t turn_limit_;
  std::vector<Request> requests_;    // by slot
  std::vector<std::byte> copy_;      // of what was read, to be checked
  std::optional<Choice> postponed_;  // chosen, but the ring was full
  Phase phase_ = Phase::measure;
  uint64_t cursor_ = 0;
  bool exhausted_ = false;
  bool looks_back_now_ = false;  // the last choice, if there was anything to read again
  uint32_t death_ = 0;           // the last of `deaths_` that was seen
  uint64_t state_;               // of the random numbers
  Tally tally_;
  Tally counted_;
  int64_t begin_ = 0;
  uint64_t kicks_before_ = 0;
  std::atomic<uint64_t> finished_ = 0;
  std::atomic<uint32_t> deaths_ = 0;
};

}  // namespace ringway::tools
