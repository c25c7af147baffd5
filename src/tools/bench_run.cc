#include "ringway/tools/bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "ringway/tools/drive.h"

namespace ringway::tools {
namespace {

using Failure = std::unexpected<std::string>;
constexpr uint64_t verified_by_default = 1 << 30;  // bytes

bool writes(Pattern pattern) { return pattern != Pattern::read && pattern != Pattern::randread; }
bool reads(Pattern pattern) { return pattern != Pattern::write && pattern != Pattern::randwrite; }
bool is_random(Pattern pattern) { return pattern != Pattern::read && pattern != Pattern::write; }

class Bench {
 public:
  Bench(BenchOptions options, const BenchWatch::Show& show) : options_(std::move(options)), watch_(show) {}

  std::expected<BenchResult, std::string> run() {
    if (options_.seed == 0) options_.seed = any_seed();
    if (auto made = make_testimony(); !made) return Failure(std::move(made).error());
    options_.front_end.inflight |= options_.reconnect;
    auto opened = BlkFrontEnd::open(options_.front_end);
    if (!opened) return Failure(std::move(opened).error());
    front_end_ = *std::move(opened);
    if (options_.reconnect && !front_end_->may_reconnect())
      return Failure("--reconnect: the back-end keeps no account of what is in flight");
    if (auto fits = fit(); !fits) return Failure(std::move(fits).error());
    make_jobs();
    note_setting();
    const bool fills = options_.verify && reads(options_.pattern);
    const bool checks = options_.verify && writes(options_.pattern);
    if (fills) sweep(Phase::fill, "filling");
    if (watch_.going_on()) measure();
    if (watch_.going_on() && checks) sweep(Phase::check, "checking");
    finish();
    return std::move(result_);
  }

 private:
  // Before the back-end opens it, which is when its queues start.
  std::expected<void, std::string> make_testimony() {
    if (options_.witness.empty()) return {};
    if (!options_.verify || options_.size == 0) return Failure("--witness needs --verify and --size");
    const uint32_t block = options_.front_end.data_bytes;
    auto made = backing::Testimony::make(
        options_.witness, {.magic = pattern_magic, .seed = options_.seed, .offset = options_.offset}, block,
        options_.size / block);
    if (!made) return Failure(fmt::format("{}: {}", options_.witness, made.error().to_string()));
    testimony_.emplace(*std::move(made));
    return {};
  }

  // Whether the options go with the disk; completes those that depend on it.
  std::expected<void, std::string> fit() {
    const BlkDisk& disk = front_end_->disk();
    const uint32_t block = options_.front_end.data_bytes;
    if (disk.read_only && (writes(options_.pattern) || options_.verify))
      return Failure("the disk is read-only");
    if (block % disk.block_bytes != 0 || options_.offset % disk.block_bytes != 0) {
      return Failure(
          fmt::format("requests must be aligned to the disk's blocks of {} bytes", disk.block_bytes));
    }
    if (options_.offset >= disk.capacity) {
      return Failure(fmt::format("the disk has {} bytes; the offset is behind its end", disk.capacity));
    }
    const uint64_t rest = disk.capacity - options_.offset;
    if (options_.size > rest)
      return Failure(fmt::format("the disk has only {} bytes from the offset on", rest));
    if (options_.size == 0) options_.size = options_.verify ? std::min(rest, verified_by_default) : rest;
    const uint64_t blocks_per_queue = options_.size / block / options_.front_end.queues;
    const uint64_t needed = options_.verify ? options_.front_end.depth + 1 : 1;
    if (blocks_per_queue < needed) {
      return Failure(fmt::format("{} bytes are too few for {} queues and blocks of {} bytes at this depth",
                                 options_.size, options_.front_end.queues, block));
    }
    return {};
  }

  void make_jobs() {
    const uint32_t block = options_.front_end.data_bytes;
    const uint16_t queues = options_.front_end.queues;
    // No two queues may write a verified block, or read the same sequence.
    const bool split = options_.verify || !is_random(options_.pattern);
    const uint64_t blocks = options_.size / block / (split ? queues : 1);
    std::vector<Drive::Part> parts;
    for (uint16_t queue = 0; queue < queues; ++queue) {
      const uint64_t offset = options_.offset + (split ? queue * blocks * block : 0);
      const Work work{.random = is_random(options_.pattern),
                      .read_percent = read_percent(),
                      .block_bytes = block,
                      .offset = offset,
                      .blocks = blocks,
                      .seed = options_.seed + queue,
                      .looks_back = options_.reconnect};
      if (options_.verify) {
        ledgers_.push_back(std::make_unique<Ledger>(options_.seed, queue, offset, block, blocks));
        if (testimony_) ledgers_.back()->set_testimony(&*testimony_);
      }
      Ledger* const ledger = options_.verify ? ledgers_.back().get() : nullptr;
      jobs_.push_back(std::make_unique<BlkJob>(front_end_->driver(queue), work, ledger));
      parts.push_back({.job = jobs_.back().get(), .calls = {&front_end_->call_signal(queue)}});
    }
    options_.run.complete(queues);
    drive_ = std::make_unique<Drive>(std::move(parts), options_.run.drive());
    std::optional<BenchWatch::Succession> succession;
    if (options_.reconnect)
      succession = {.gone = [this] { return front_end_->gone(); },
                    .reconnect = [this] { return reconnect(); }};
    watch_.look_after(*drive_, options_.run, [this] { return front_end_->trouble(); }, std::move(succession));
  }

  // Before the next back-end serves anything: nothing that the last one has acknowledged is written over
  // unseen.
  std::expected<void, std::string> reconnect() {
    for (const auto& job : jobs_) job->look_back();
    return front_end_->reconnect();
  }

  [[nodiscard]] unsigned read_percent() const {
    if (!writes(options_.pattern)) return 100;
    return reads(options_.pattern) ? options_.read_percent : 0;
  }

  void note_setting() {
    result_.capacity = front_end_->disk().capacity;
    result_.program = front_end_->program();
    result_.pid = front_end_->pid();
    options_.front_end = front_end_->options();
    options_.front_end.indirect = front_end_->format().indirect;  // as negotiated
    options_.front_end.event_idx = front_end_->format().event_idx;
    result_.options = options_;
  }

  // Every block once.
  void sweep(Phase phase, std::string_view name) {
    watch_.sweep(phase, name);
    result_.unmeasured_failures += tally().failed();
  }

  void measure() {
    result_.cpu = watch_.measure({result_.pid});
    result_.tally = tally();
  }

  [[nodiscard]] Tally tally() const {
    Tally sum;
    for (const auto& job : jobs_) sum.add(job->counted());
    return sum;
  }

  void finish() {
    for (const auto& ledger : ledgers_) result_.account.add(ledger->account());
    for (const auto& job : jobs_) result_.looked_back += job->looked_back();
    result_.interrupted = watch_.interrupted();
    result_.errors = watch_.errors();
    result_.hung = watch_.hung();
    result_.reconnects = watch_.reconnects();
    result_.pid = front_end_->pid();
    if (options_.front_end.dirty_log) result_.dirty_pages = front_end_->dirty_pages();
    if (testimony_) {
      result_.executed = testimony_->executed();
      result_.repeated = testimony_->repeated();
      if (result_.executed < result_.account.written)
        result_.errors.push_back(
            "the back-end has not witnessed all writes: it needs --witness with the same file");
    }
    if (!result_.errors.empty()) return;  // a back-end in trouble would make us wait
    const int64_t begin = now_ns();
    if (auto stopped = front_end_->stop(); !stopped) {
      result_.errors.push_back(std::move(stopped).error());
      result_.hung = options_.run.has_waited_since(begin);
    }
  }

  BenchOptions options_;
  BenchWatch watch_;
  BenchResult result_;
  std::unique_ptr<BlkFrontEnd> front_end_;
  std::optional<backing::Testimony> testimony_;  // outlives the ledgers
  std::vector<std::unique_ptr<Ledger>> ledgers_;
  std::vector<std::unique_ptr<BlkJob>> jobs_;
  std::unique_ptr<Drive> drive_;
};

}  // namespace

std::expected<BenchResult, std::string> run_bench(BenchOptions options, const BenchWatch::Show& show) {
  return Bench(std::move(options), show).run();
}

}  // namespace ringway::tools
