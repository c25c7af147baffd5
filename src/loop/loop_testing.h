// What the tests of the loop share: both pollers as a parameter, a source that counts, waiting, a thread's
// CPU time.
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "ringway/base/notifier.h"
#include "ringway/loop/loop.h"

namespace ringway::loop::testing {

using namespace std::chrono_literals;

inline std::unique_ptr<Loop> start_or_fail(Options options) {
  auto loop = Loop::start(std::move(options));
  if (!loop) {
    ADD_FAILURE() << loop.error().to_string();
    std::abort();
  }
  return *std::move(loop);
}

// Waits, for a generous time, until `condition` holds.
inline bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(200us);
  }
  return true;
}

// Work is a number that any thread may raise; a parked source asks to be notified, as a ring does.
class CountingSource : public Source {
 public:
  bool poll() override {
    ++polls;
    const int64_t now = work.load(std::memory_order_acquire);
    if (now == done) return false;
    done = now;
    return true;
  }
  bool park() override {
    wants_notification.store(true);
    if (work.load() != done) {
      wants_notification.store(false);
      ++refused_parks;
      return false;
    }
    ++parks;
    parked = true;
    return true;
  }
  void unpark() override {
    ++unparks;
    parked = false;
    wants_notification.store(false);
  }

  std::atomic<int64_t> work = 0;
  std::atomic<bool> wants_notification = false;
  std::atomic<int64_t> done = 0;
  std::atomic<int64_t> polls = 0;
  std::atomic<int> parks = 0;
  std::atomic<int> unparks = 0;
  std::atomic<int> refused_parks = 0;
  std::atomic<bool> parked = false;
};

struct Eventfd {
  UniqueFd writer;
  Signal signal;
  explicit Eventfd(int flags = 0) : writer(::eventfd(0, flags | EFD_CLOEXEC)) {
    signal = *Signal::adopt(*writer.duplicate());
  }
  void kick(uint64_t events = 1) const { ASSERT_EQ(::write(writer.get(), &events, sizeof events), 8); }
};

struct Usage {
  std::chrono::nanoseconds cpu;
  long wakeups;  // times that the thread gave up its CPU of its own accord
};

// Of the loop's thread.
inline Usage usage(Loop& loop) {
  Usage result{};
  loop.run([&] {
    timespec cpu{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    rusage all{};
    ::getrusage(RUSAGE_THREAD, &all);
    result = {.cpu = std::chrono::seconds(cpu.tv_sec) + std::chrono::nanoseconds(cpu.tv_nsec),
              .wakeups = all.ru_nvcsw};
  });
  return result;
}

inline Usage usage_over(Loop& loop, std::chrono::milliseconds time) {
  const Usage before = usage(loop);
  std::this_thread::sleep_for(time);
  const Usage after = usage(loop);
  return {.cpu = after.cpu - before.cpu, .wakeups = after.wakeups - before.wakeups};
}

// A test of this kind runs once with each poller.
class LoopTest : public ::testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] std::unique_ptr<Loop> start(Polling polling = Polling::adaptive) const {
    return start_or_fail({.polling = polling, .use_io_uring = GetParam(), .name = "test"});
  }
  // An idle thread wakes for nobody: what is allowed here is the cost of measuring it.
  static void expect_asleep(Loop& loop) {
    const Usage used = usage_over(loop, 300ms);
    EXPECT_LT(used.cpu, 15ms);
    EXPECT_LE(used.wakeups, 4);
  }
};

inline std::string poller_name(const ::testing::TestParamInfo<bool>& info) {
  return info.param ? "io_uring" : "epoll";
}

#define RINGWAY_BOTH_POLLERS(Suite) \
  INSTANTIATE_TEST_SUITE_P(Pollers, Suite, ::testing::Bool(), ::ringway::loop::testing::poller_name)

}  // namespace ringway::loop::testing
