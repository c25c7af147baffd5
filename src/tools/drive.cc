#include "ringway/tools/drive.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace ringway::tools {
namespace {

// How long a sleeping thread may take to see that it is to stop.
constexpr int longest_sleep_ms = 100;

bool pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  return ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) == 0;
}

}  // namespace

int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

Drive::Drive(std::vector<Part> parts, DriveOptions options)
    : options_(std::move(options)), threads_(options_.threads) {
  for (size_t i = 0; i < parts.size(); ++i)
    threads_[i % threads_.size()].parts.push_back(std::move(parts[i]));
  for (size_t i = 0; i < threads_.size(); ++i) {
    if (!options_.cpus.empty()) threads_[i].cpu = options_.cpus[i % options_.cpus.size()];
  }
}

Drive::~Drive() {
  stop();
  abandon();
}

void Drive::start(Phase phase) {
  stop_ = false;
  running_ = static_cast<unsigned>(threads_.size());
  for (Thread& each : threads_) {
    each.thread = std::jthread([this, &each, phase] { run(each, phase); });
  }
}

Result<> Drive::finish() {
  for (Thread& each : threads_) each.thread.join();
  for (const Thread& each : threads_) {
    if (each.error) return std::unexpected(*each.error);
  }
  return {};
}

void Drive::run(Thread& self, Phase phase) {
  if (self.cpu) self.pinned = pin(*self.cpu);
  for (const Part& part : self.parts) {
    part.job->begin(phase, now_ns());
    if (!options_.interrupts) part.job->wake_up();
  }
  if (const Result<> done = turn_all(self); !done) {
    self.error = done.error();
    count(self);
    stop();  // the others too
  }
  running_.fetch_sub(1, std::memory_order_release);
}

Result<> Drive::turn_all(Thread& self) {
  unsigned epoch = epoch_.load(std::memory_order_relaxed);
  bool counted = false;
  while (!abandon_.load(std::memory_order_relaxed)) {
    const bool stop = stop_.load(std::memory_order_relaxed);
    if (stop && !counted) count(self);
    counted = stop;
    if (const unsigned now = epoch_.load(std::memory_order_relaxed); now != epoch) {
      epoch = now;
      for (const Part& part : self.parts) part.job->clear(now_ns());
    }
    bool busy = false;
    bool at_rest = true;
    for (const Part& part : self.parts) {
      busy |= TRY(part.job->turn(stop));
      at_rest &= part.job->at_rest(stop);
    }
    if (at_rest) break;
    if (busy) continue;
    if (options_.interrupts) sleep(self.parts);
  }
  if (!counted) count(self);
  return {};
}

void Drive::count(Thread& self) {
  for (const Part& part : self.parts) part.job->count(now_ns());
}

// Until one of the queues has something, or for a while.
void Drive::sleep(std::span<const Part> parts) {
  std::array<pollfd, 512> waits;
  size_t watched = 0;
  bool ready = false;
  for (const Part& part : parts) {
    ready |= part.job->prepare_to_sleep();
    for (const Signal* call : part.calls) {
      if (watched < waits.size()) waits[watched++] = {.fd = call->fd(), .events = POLLIN, .revents = 0};
    }
  }
  if (!ready) ::poll(waits.data(), watched, longest_sleep_ms);
  for (const Part& part : parts) {
    for (const Signal* call : part.calls) call->take();
    part.job->wake_up();
  }
}

uint64_t Drive::finished() const {
  uint64_t sum = 0;
  for (const Thread& each : threads_) {
    for (const Part& part : each.parts) sum += part.job->finished();
  }
  return sum;
}

uint64_t Drive::in_flight() const {
  uint64_t sum = 0;
  for (const Thread& each : threads_) {
    for (const Part& part : each.parts) sum += part.job->in_flight();
  }
  return sum;
}

std::optional<int> Drive::unavailable_cpu() const {
  for (const Thread& each : threads_) {
    if (!each.pinned) return each.cpu;
  }
  return std::nullopt;
}

}  // namespace ringway::tools
