#include "ringway/tools/bench_run.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/random.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>

#include "ringway/tools/drive.h"
#include "ringway/tools/process_clock.h"

namespace ringway::tools {
namespace {

using Failure = std::unexpected<std::string>;
constexpr uint64_t verified_by_default = 1 << 30;  // bytes
constexpr timespec tick{.tv_sec = 0, .tv_nsec = 50'000'000};
constexpr timespec retry{.tv_sec = 0, .tv_nsec = 2'000'000};
constexpr int64_t second = 1'000'000'000;  // nanoseconds

bool writes(Pattern pattern) { return pattern != Pattern::read && pattern != Pattern::randread; }
bool reads(Pattern pattern) { return pattern != Pattern::write && pattern != Pattern::randwrite; }
bool is_random(Pattern pattern) { return pattern != Pattern::read && pattern != Pattern::write; }

unsigned usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 1;
}

uint64_t any_seed() {
  uint64_t seed = 0;
  return ::getrandom(&seed, sizeof seed, 0) == sizeof seed ? seed : static_cast<uint64_t>(now_ns());
}

// Blocks SIGINT and SIGTERM for this thread and those it starts, and says whether one has come.
class Interruption {
 public:
  Interruption() {
    ::sigemptyset(&set_);
    ::sigaddset(&set_, SIGINT);
    ::sigaddset(&set_, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~Interruption() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;
  [[nodiscard]] bool wait(const timespec& longest) const {
    return ::sigtimedwait(&set_, nullptr, &longest) > 0;
  }

 private:
  sigset_t set_{};
  sigset_t before_{};
};

class Bench {
 public:
  Bench(BenchOptions options, const std::function<void(const Progress&)>& show)
      : options_(std::move(options)), show_(show) {}

  std::expected<BenchResult, std::string> run() {
    if (options_.seed == 0) options_.seed = any_seed();
    if (auto made = make_testimony(); !made) return Failure(std::move(made).error());
    options_.front_end.inflight |= options_.reconnect;
    auto opened = BlkFrontEnd::open(options_.front_end);
    if (!opened) return Failure(std::move(opened).error());
    front_end_ = *std::move(opened);
    if (auto fits = fit(); !fits) return Failure(std::move(fits).error());
    make_jobs();
    note_setting();
    const bool fills = options_.verify && reads(options_.pattern);
    const bool checks = options_.verify && writes(options_.pattern);
    if (fills) sweep(Phase::fill, "filling");
    if (going_on()) measure();
    if (going_on() && checks) sweep(Phase::check, "checking");
    finish();
    return std::move(result_);
  }

 private:
  [[nodiscard]] bool going_on() const { return result_.errors.empty() && !result_.interrupted; }

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
                      .seed = options_.seed + queue};
      if (options_.verify) {
        ledgers_.push_back(std::make_unique<Ledger>(options_.seed, queue, offset, block, blocks));
        if (testimony_) ledgers_.back()->set_testimony(&*testimony_);
      }
      Ledger* const ledger = options_.verify ? ledgers_.back().get() : nullptr;
      jobs_.push_back(std::make_unique<BlkJob>(front_end_->driver(queue), work, ledger));
      parts.push_back({.job = jobs_.back().get(), .call = &front_end_->call_signal(queue)});
    }
    if (options_.threads == 0) {
      const unsigned cpus = usable_cpus();
      options_.threads = std::clamp(options_.interrupts ? cpus : cpus - 1, 1U, unsigned{queues});
    }
    options_.threads = std::min(options_.threads, unsigned{queues});
    drive_ = std::make_unique<Drive>(
        std::move(parts),
        DriveOptions{.threads = options_.threads, .cpus = options_.cpus, .interrupts = options_.interrupts});
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
    drive_->start(phase);
    watch(name, std::nullopt);
    end_phase();
    result_.unmeasured_failures += drive_->tally().failed();
  }

  void measure() {
    const ProcessClock own = ProcessClock::own();
    const ProcessClock peer(result_.pid);
    drive_->start(Phase::measure);
    if (options_.warm_up > 0) watch("warming up", options_.warm_up);
    if (going_on()) {
      const auto own_before = own.read();
      const auto peer_before = peer.read();
      const int64_t before = now_ns();
      drive_->count_anew();
      watch("measuring", options_.run_time);
      const int64_t elapsed = now_ns() - before;
      result_.driver_cpu = cores(own_before, own.read(), elapsed);
      result_.back_end_cpu = cores(peer_before, peer.read(), elapsed);
    }
    drive_->stop();
    if (result_.errors.empty()) watch("finishing", std::nullopt);
    end_phase();
    result_.tally = drive_->tally();
  }

  static std::optional<double> cores(std::optional<int64_t> before, std::optional<int64_t> after,
                                     int64_t elapsed) {
    if (!before || !after || elapsed <= 0) return std::nullopt;
    return static_cast<double>(*after - *before) / static_cast<double>(elapsed);
  }

  // Until the time is over, all threads are at rest, or something happens that ends the run.
  void watch(std::string_view phase, std::optional<double> seconds) {
    const int64_t begin = now_ns();
    int64_t shown = begin;
    int64_t progressed = begin;
    uint64_t shown_finished = drive_->finished();
    uint64_t last_finished = shown_finished;
    while (!drive_->at_rest()) {
      const bool interrupted = wait_until(begin, seconds);
      const int64_t now = now_ns();
      const uint64_t finished = drive_->finished();
      if (finished != last_finished) progressed = now;
      last_finished = finished;
      if (now - shown >= second) {
        show_({.phase = phase,
               .seconds = since(begin, now),
               .rate = static_cast<double>(finished - shown_finished) / since(shown, now)});
        shown = now;
        shown_finished = finished;
      }
      if (interrupted && !interrupt()) return;
      if (options_.reconnect && front_end_->gone()) {
        reconnect();
        progressed = std::max(progressed, reconnected_);
        continue;
      }
      if (const auto trouble = front_end_->trouble()) {
        if (options_.reconnect && front_end_->gone()) continue;  // since we looked
        return fail(*trouble);
      }
      if (since(progressed, now) > options_.patience) {
        return fail(fmt::format("nothing has come back for {:.0f} seconds", options_.patience));
      }
      if (seconds && since(begin, now) >= *seconds) return;
    }
  }

  // Until somebody serves the disk again, or patience ends.
  void reconnect() {
    const int64_t begin = now_ns();
    std::string trouble;
    while (since(begin, now_ns()) < options_.patience) {
      if (interruption_.wait(retry)) {
        result_.interrupted = true;
        return fail("interrupted while there was no back-end");
      }
      if (auto done = front_end_->reconnect(); !done) {
        trouble = std::move(done).error();
        continue;
      }
      ++result_.reconnects;
      result_.pid = front_end_->pid();
      reconnected_ = now_ns();
      return;
    }
    fail(fmt::format("nobody has come back for {:.0f} seconds: {}", options_.patience, trouble));
  }

  // At most a tick, and not beyond the end. True: the user wants to end it.
  [[nodiscard]] bool wait_until(int64_t begin, std::optional<double> seconds) const {
    timespec time = options_.reconnect ? retry : tick;
    if (seconds) {
      const auto left = static_cast<int64_t>((*seconds - since(begin, now_ns())) * 1e9);
      time.tv_nsec = std::clamp<int64_t>(left, 0, time.tv_nsec);
    }
    return interruption_.wait(time);
  }

  static double since(int64_t before, int64_t now) { return static_cast<double>(now - before) / 1e9; }

  // What is in flight is waited for, unless the user insists: some programs send their signals twice at once.
  // False: this phase is over.
  bool interrupt() {
    if (!std::exchange(result_.interrupted, true)) interrupted_ = now_ns();
    drive_->stop();
    if (now_ns() - interrupted_ < second) return true;
    fail("interrupted twice: requests in flight were not waited for");
    return false;
  }

  void fail(std::string sentence) {
    result_.errors.push_back(std::move(sentence));
    drive_->stop();
    drive_->abandon();
  }

  void end_phase() {
    const Result<> done = drive_->finish();
    if (!done)
      result_.errors.push_back(fmt::format("the back-end broke the ring: {}", done.error().to_string()));
    if (const auto cpu = drive_->unavailable_cpu()) fail(fmt::format("cannot run on CPU {}", *cpu));
    if (drive_->in_flight() > 0) {
      result_.errors.push_back(fmt::format("{} requests were never answered", drive_->in_flight()));
    }
  }

  void finish() {
    for (const auto& ledger : ledgers_) result_.account.add(ledger->account());
    if (options_.front_end.dirty_log) result_.dirty_pages = front_end_->dirty_pages();
    if (testimony_) {
      result_.executed = testimony_->executed();
      result_.repeated = testimony_->repeated();
      if (result_.executed < result_.account.written)
        result_.errors.push_back(
            "the back-end has not witnessed all writes: it needs --witness with the same file");
    }
    if (!result_.errors.empty()) return;  // a back-end in trouble would make us wait
    if (auto stopped = front_end_->stop(); !stopped) result_.errors.push_back(std::move(stopped).error());
  }

  BenchOptions options_;
  const std::function<void(const Progress&)>& show_;
  const Interruption interruption_;
  int64_t interrupted_ = 0;                      // when
  int64_t reconnected_ = 0;                      // likewise
  std::optional<backing::Testimony> testimony_;  // outlives the ledgers
  BenchResult result_;
  std::unique_ptr<BlkFrontEnd> front_end_;
  std::vector<std::unique_ptr<Ledger>> ledgers_;
  std::vector<std::unique_ptr<BlkJob>> jobs_;
  std::unique_ptr<Drive> drive_;
};

}  // namespace

std::expected<BenchResult, std::string> run_bench(BenchOptions options,
                                                  const std::function<void(const Progress&)>& show) {
  return Bench(std::move(options), show).run();
}

}  // namespace ringway::tools
