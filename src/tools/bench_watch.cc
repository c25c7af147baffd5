#include "ringway/tools/bench_watch.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/random.h>

#include <algorithm>
#include <cassert>
#include <csignal>
#include <utility>

#include "ringway/tools/process_clock.h"

namespace ringway::tools {
namespace {

constexpr timespec tick{.tv_sec = 0, .tv_nsec = 50'000'000};
constexpr timespec retry{.tv_sec = 0, .tv_nsec = 2'000'000};
constexpr int64_t second = 1'000'000'000;  // nanoseconds

unsigned usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 1;
}

double since(int64_t before, int64_t now) { return static_cast<double>(now - before) / 1e9; }

// CPU time of some processes, in nanoseconds; nothing if one of them cannot be seen.
class Clocks {
 public:
  explicit Clocks(std::vector<pid_t> processes) {
    std::sort(processes.begin(), processes.end());
    processes.erase(std::unique(processes.begin(), processes.end()), processes.end());
    for (const pid_t pid : processes) clocks_.emplace_back(pid);
  }
  [[nodiscard]] std::optional<int64_t> read() const {
    int64_t sum = 0;
    for (const ProcessClock& clock : clocks_) {
      const auto time = clock.read();
      if (!time) return std::nullopt;
      sum += *time;
    }
    return sum;
  }

 private:
  std::vector<ProcessClock> clocks_;
};

std::optional<double> cores(std::optional<int64_t> before, std::optional<int64_t> after, int64_t elapsed) {
  if (!before || !after || elapsed <= 0) return std::nullopt;
  return static_cast<double>(*after - *before) / static_cast<double>(elapsed);
}

}  // namespace

void RunOptions::complete(unsigned jobs) {
  if (threads == 0) {
    const unsigned usable = usable_cpus();
    threads = std::clamp(interrupts ? usable : usable - 1, 1U, jobs);
  }
  threads = std::min(threads, jobs);
}

bool RunOptions::has_waited_since(int64_t begin) const { return since(begin, now_ns()) >= patience; }

DriveOptions RunOptions::drive() const {
  return {.threads = threads, .cpus = cpus, .interrupts = interrupts};
}

uint64_t any_seed() {
  uint64_t seed = 0;
  return ::getrandom(&seed, sizeof seed, 0) == sizeof seed ? seed : static_cast<uint64_t>(now_ns());
}

BenchWatch::BenchWatch(const Show& show) : show_(show) {
  ::sigemptyset(&signals_);
  ::sigaddset(&signals_, SIGINT);
  ::sigaddset(&signals_, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &signals_, &before_);
}

BenchWatch::~BenchWatch() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

void BenchWatch::look_after(Drive& drive, const RunOptions& options, Trouble trouble,
                            std::optional<Succession> succession) {
  drive_ = &drive;
  options_ = &options;
  trouble_ = std::move(trouble);
  succession_ = std::move(succession);
}

void BenchWatch::sweep(Phase phase, std::string_view name) {
  drive_->start(phase);
  watch(name, std::nullopt);
  end_phase();
}

CpuUse BenchWatch::measure(const std::vector<pid_t>& back_ends) {
  CpuUse use;
  const ProcessClock own = ProcessClock::own();
  const Clocks peers(back_ends);
  drive_->start(Phase::measure);
  if (options_->warm_up > 0) watch("warming up", options_->warm_up);
  if (going_on()) {
    const auto own_before = own.read();
    const auto peers_before = peers.read();
    const int64_t before = now_ns();
    drive_->count_anew();
    watch("measuring", options_->run_time);
    const int64_t elapsed = now_ns() - before;
    use = {.driver = cores(own_before, own.read(), elapsed),
           .back_end = cores(peers_before, peers.read(), elapsed)};
  }
  drive_->stop();
  if (errors_.empty()) watch("finishing", std::nullopt);
  end_phase();
  return use;
}

// Until the time is over, all threads are at rest, or something happens that ends the run.
void BenchWatch::watch(std::string_view phase, std::optional<double> seconds) {
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
    if (has_gone()) {
      reconnect();
      progressed = now_ns();
      continue;
    }
    if (const auto trouble = trouble_()) {
      if (has_gone()) continue;  // since we looked
      return fail(*trouble);
    }
    if (since(progressed, now) > options_->patience) {
      return hang(fmt::format("nothing has come back for {:.0f} seconds", options_->patience));
    }
    if (seconds && since(begin, now) >= *seconds) return;
  }
}

// Until somebody serves the device again, or patience ends.
void BenchWatch::reconnect() {
  assert(succession_);
  const auto& try_again = succession_->reconnect;
  const int64_t begin = now_ns();
  std::string trouble;
  while (since(begin, now_ns()) < options_->patience) {
    if (wait(retry)) {
      interrupted_ = true;
      return fail("interrupted while there was no back-end");
    }
    if (auto done = try_again(); !done) {
      trouble = std::move(done).error();
      continue;
    }
    ++reconnects_;
    return;
  }
  hang(fmt::format("nobody has come back for {:.0f} seconds: {}", options_->patience, trouble));
}

bool BenchWatch::wait(const timespec& time) const { return ::sigtimedwait(&signals_, nullptr, &time) > 0; }

// At most a tick, and not beyond the end. True: the user wants to end it.
bool BenchWatch::wait_until(int64_t begin, std::optional<double> seconds) const {
  timespec time = succession_ ? retry : tick;
  if (seconds) {
    const auto left = static_cast<int64_t>((*seconds - since(begin, now_ns())) * 1e9);
    time.tv_nsec = std::clamp<int64_t>(left, 0, time.tv_nsec);
  }
  return wait(time);
}

// What is in flight is waited for, unless the user insists: some programs send their signals twice at once.
// False: this phase is over.
bool BenchWatch::interrupt() {
  if (!std::exchange(interrupted_, true)) interrupted_at_ = now_ns();
  drive_->stop();
  if (now_ns() - interrupted_at_ < second) return true;
  fail("interrupted twice: requests in flight were not waited for");
  return false;
}

void BenchWatch::fail(std::string sentence) {
  errors_.push_back(std::move(sentence));
  if (drive_ == nullptr) return;
  drive_->stop();
  drive_->abandon();
}

void BenchWatch::hang(std::string sentence) {
  hung_ = true;
  fail(std::move(sentence));
}

void BenchWatch::end_phase() {
  const Result<> done = drive_->finish();
  if (!done) errors_.push_back(fmt::format("the back-end broke the ring: {}", done.error().to_string()));
  if (const auto cpu = drive_->unavailable_cpu()) fail(fmt::format("cannot run on CPU {}", *cpu));
  if (drive_->in_flight() > 0) {
    errors_.push_back(fmt::format("{} requests were never answered", drive_->in_flight()));
  }
}

}  // namespace ringway::tools
