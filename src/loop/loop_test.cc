#include "ringway/loop/loop.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <vector>

#include "ringway/base/failing_call_test.h"
#include "ringway/loop/loop_testing.h"

namespace ringway::loop {
namespace {

using namespace testing;

RINGWAY_BOTH_POLLERS(LoopTest);

// Posted tasks.

TEST_P(LoopTest, PostedTasksRunInOrderOnTheLoopsThread) {
  auto loop = start();
  std::vector<int> order;
  bool current = true;
  for (int i = 0; i < 1000; ++i) {
    loop->post([&, i] {
      order.push_back(i);
      current = current && loop->is_current();
    });
  }
  loop->run([] {});
  ASSERT_EQ(order.size(), 1000U);
  EXPECT_TRUE(std::ranges::is_sorted(order));
  EXPECT_TRUE(current);
  EXPECT_FALSE(loop->is_current());
}

TEST_P(LoopTest, ATaskMayPostAnother) {
  auto loop = start();
  std::atomic<int> count = 0;
  std::function<void()> next = [&] {
    if (++count < 100) loop->post(next);
  };
  loop->post(next);
  EXPECT_TRUE(eventually([&] { return count == 100; }));
}

TEST_P(LoopTest, TasksPostedBeforeTheEndStillRun) {
  int ran = 0;
  auto loop = start();
  for (int i = 0; i < 500; ++i) loop->post([&] { ++ran; });
  loop.reset();
  EXPECT_EQ(ran, 500);
}

TEST_P(LoopTest, NoWakeUpIsLostBetweenPostAndSleep) {
  auto loop = start();
  int count = 0;
  for (int i = 0; i < 20'000; ++i) loop->run([&] { ++count; });  // each finds the loop asleep or about to be
  EXPECT_EQ(count, 20'000);
}

TEST_P(LoopTest, ManyThreadsPostAtOnce) {
  auto loop = start();
  int count = 0;
  {
    std::vector<std::jthread> posters;
    for (int poster = 0; poster < 4; ++poster) {
      posters.emplace_back([&] {
        for (int i = 0; i < 10'000; ++i) loop->post([&] { ++count; });
      });
    }
  }
  loop->run([] {});
  EXPECT_EQ(count, 40'000);
}

TEST_P(LoopTest, ALoopMayBeDestroyedByWhatItsLastTaskAllows) {
  for (int i = 0; i < 500; ++i) {
    auto loop = start();
    std::atomic<bool> done = false;
    std::jthread poster([&] { loop->post([&] { done = true; }); });
    while (!done) std::this_thread::yield();
    loop.reset();  // perhaps while post() is still returning
  }
}

// Sources.

TEST_P(LoopTest, ABusySourceIsNeverParked) {
  auto loop = start();
  class Busy final : public CountingSource {
    bool poll() override {
      ++polls;
      return true;
    }
  } source;
  loop->run([&] { loop->add(source); });
  EXPECT_TRUE(eventually([&] { return source.polls > 100'000; }));
  EXPECT_EQ(source.parks, 0);
  loop->run([&] { loop->remove(source); });
}

TEST_P(LoopTest, AnAdaptiveSourceWithoutWorkIsParkedAfterItsWindow) {
  auto loop = start();
  CountingSource source;
  loop->run([&] { loop->add(source); });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  EXPECT_GT(source.polls, 1);
  const int64_t polls = source.polls;
  std::this_thread::sleep_for(10ms);
  EXPECT_EQ(source.polls, polls);
  loop->run([&] { loop->remove(source); });
}

TEST_P(LoopTest, WithoutPollingASourceIsParkedAtItsFirstTurnWithoutWork) {
  auto loop = start(Polling::never);
  CountingSource source;
  source.work = 7;
  loop->run([&] { loop->add(source); });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  EXPECT_EQ(source.polls, 2);
  EXPECT_EQ(source.done, 7);
  loop->run([&] { loop->remove(source); });
}

TEST_P(LoopTest, WithPollingAlwaysASourceIsNeverParked) {
  auto loop = start(Polling::always);
  CountingSource source;
  loop->run([&] { loop->add(source); });
  std::this_thread::sleep_for(20ms);
  const int64_t polls = source.polls;
  EXPECT_TRUE(eventually([&] { return source.polls > polls + 10'000; }));
  EXPECT_EQ(source.parks, 0);
  loop->run([&] { loop->remove(source); });
  expect_asleep(*loop);
}

TEST_P(LoopTest, ASourceThatRefusesToParkStaysAwake) {
  auto loop = start(Polling::never);
  class Restless final : public CountingSource {
    bool park() override { return ++refused_parks >= 100; }
  } source;
  loop->run([&] { loop->add(source); });
  EXPECT_TRUE(eventually([&] { return source.refused_parks == 100; }));
  EXPECT_GE(source.polls, 100);
  loop->run([&] { loop->remove(source); });
}

TEST_P(LoopTest, WakeMakesAParkedSourcePollForAWindow) {
  auto loop = start();
  CountingSource source;
  loop->run([&] { loop->add(source); });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  const int64_t polls = source.polls;
  loop->run([&] { loop->wake(source); });
  EXPECT_TRUE(eventually([&] { return source.parks == 2; }));
  EXPECT_EQ(source.unparks, 1);
  EXPECT_GT(source.polls, polls + 1);
  loop->run([&] {
    loop->wake(source);
    loop->wake(source);  // awake already
    EXPECT_EQ(source.unparks, 2);
    loop->remove(source);
  });
}

TEST_P(LoopTest, ASourceMayRemoveItselfInsidePoll) {
  auto loop = start(Polling::always);
  struct Suicidal final : CountingSource {
    Loop* loop = nullptr;
    bool poll() override {
      if (++polls == 3) loop->remove(*this);
      return true;
    }
  };
  auto source = std::make_unique<Suicidal>();
  source->loop = loop.get();
  loop->run([&] { loop->add(*source); });
  ASSERT_TRUE(eventually([&] { return source->polls == 3; }));
  loop->run([&] { source.reset(); });
  expect_asleep(*loop);
}

TEST_P(LoopTest, ASourceMayDestroyAnotherInsidePoll) {
  for (const bool victim_first : {false, true}) {
    auto loop = start(Polling::always);
    auto victim = std::make_unique<CountingSource>();
    struct Killer final : CountingSource {
      Loop* loop = nullptr;
      std::unique_ptr<CountingSource>* victim = nullptr;
      bool poll() override {
        if (++polls == 2) {
          loop->remove(**victim);
          victim->reset();
        }
        return false;
      }
    } killer;
    killer.loop = loop.get();
    killer.victim = &victim;
    loop->run([&] {
      if (victim_first) loop->add(*victim);
      loop->add(killer);
      if (!victim_first) loop->add(*victim);
    });
    EXPECT_TRUE(eventually([&] { return killer.polls > 10; }));
    loop->run([&] { loop->remove(killer); });
    EXPECT_EQ(victim, nullptr);
  }
}

TEST_P(LoopTest, SourcesMayBeAddedAndWokenInsidePoll) {
  auto loop = start(Polling::never);
  CountingSource child;
  CountingSource sleeper;
  struct Parent final : CountingSource {
    std::function<void()> once;
    bool poll() override {
      if (work == 1 && done == 0) once();
      return CountingSource::poll();
    }
  } parent;
  parent.once = [&] {
    child.work = 1;
    loop->add(child);
    sleeper.work = 1;
    loop->wake(sleeper);
  };
  loop->run([&] {
    loop->add(parent);
    loop->add(sleeper);
  });
  ASSERT_TRUE(eventually([&] { return sleeper.parked && parent.parked; }));
  parent.work = 1;
  loop->run([&] { loop->wake(parent); });
  EXPECT_TRUE(eventually([&] { return child.done == 1 && sleeper.done == 1; }));
  loop->run([&] {
    for (Source* source :
         {static_cast<Source*>(&child), static_cast<Source*>(&sleeper), static_cast<Source*>(&parent)}) {
      loop->remove(*source);
    }
  });
}

TEST_P(LoopTest, ThousandParkedSourcesCostNothing) {
  auto loop = start();
  std::vector<CountingSource> sources(1000);
  std::vector<Eventfd> kicks(1000);
  loop->run([&] {
    for (size_t i = 0; i < sources.size(); ++i) {
      loop->add(sources[i]);
      ASSERT_TRUE(loop->watch(sources[i], kicks[i].signal));
    }
  });
  ASSERT_TRUE(eventually(
      [&] { return std::ranges::all_of(sources, [](auto& source) { return source.parked.load(); }); }));
  expect_asleep(*loop);
  kicks[500].kick();
  EXPECT_TRUE(eventually([&] { return sources[500].unparks == 1; }));
  loop->run([&] {
    for (auto& source : sources) loop->remove(source);
  });
  EXPECT_EQ(sources[499].unparks, 0);
}

// The end of a turn.

class CountingDeferred final : public Deferred {
 public:
  void end_of_turn() override { ++calls; }
  int calls = 0;
};

TEST_P(LoopTest, DeferredIsCalledOnceInATurnHoweverOftenAsked) {
  auto loop = start();
  CountingDeferred deferred;
  loop->run([&] {
    loop->at_end_of_turn(deferred);
    loop->at_end_of_turn(deferred);
    EXPECT_EQ(deferred.calls, 0);
  });
  loop->run([&] { EXPECT_EQ(deferred.calls, 1); });
}

TEST_P(LoopTest, ForgottenDeferredIsNotCalled) {
  auto loop = start();
  CountingDeferred deferred;
  loop->run([&] {
    loop->at_end_of_turn(deferred);
    loop->forget(deferred);
    loop->forget(deferred);
  });
  loop->run([&] { EXPECT_EQ(deferred.calls, 0); });
}

TEST_P(LoopTest, DeferredMayAskForTheNextTurnAndForgetOthers) {
  auto loop = start();
  CountingDeferred victim;
  struct Again final : Deferred {
    Loop* loop = nullptr;
    CountingDeferred* victim = nullptr;
    std::atomic<int> calls = 0;
    void end_of_turn() override {
      loop->forget(*victim);
      if (++calls < 5) loop->at_end_of_turn(*this);
    }
  } again;
  again.loop = loop.get();
  again.victim = &victim;
  loop->run([&] {
    loop->at_end_of_turn(again);
    loop->at_end_of_turn(victim);
  });
  EXPECT_TRUE(eventually([&] { return again.calls == 5; }));
  loop->run([&] { EXPECT_EQ(victim.calls, 0); });
}

// Timers.

TEST_P(LoopTest, ATimerRunsOnceAndNotEarly) {
  auto loop = start();
  std::atomic<int> calls = 0;
  std::chrono::nanoseconds waited{};
  loop->run([&] {
    loop->after(30ms, [&, begin = Loop::Clock::now()] {
      waited = Loop::Clock::now() - begin;
      ++calls;
    });
  });
  EXPECT_TRUE(eventually([&] { return calls == 1; }));
  std::this_thread::sleep_for(40ms);
  EXPECT_EQ(calls, 1);
  loop->run([&] { EXPECT_GE(waited, 30ms); });
}

TEST_P(LoopTest, TimersRunInTheOrderOfTheirTimes) {
  auto loop = start();
  std::vector<int> order;
  std::atomic<bool> done = false;
  loop->run([&] {
    loop->after(20ms, [&] { order.push_back(3), done = true; });
    loop->after(1ms, [&] { order.push_back(1); });
    loop->after(10ms, [&] { order.push_back(2); });
  });
  ASSERT_TRUE(eventually([&] { return done.load(); }));
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
}

TEST_P(LoopTest, ACancelledTimerDoesNotRun) {
  auto loop = start();
  bool ran = false;
  std::atomic<bool> later = false;
  loop->run([&] {
    const uint64_t timer = loop->after(5ms, [&] { ran = true; });
    EXPECT_NE(timer, 0U);
    loop->after(20ms, [&] { later = true; });
    loop->cancel(timer);
    loop->cancel(timer);
    loop->cancel(0);
  });
  EXPECT_TRUE(eventually([&] { return later.load(); }));
  EXPECT_FALSE(ran);
}

TEST_P(LoopTest, ATimerMaySetAnotherAndCancelOneThatIsDue) {
  auto loop = start();
  std::atomic<int> rounds = 0;
  bool cancelled_ran = false;
  uint64_t victim = 0;
  std::function<void()> round = [&] {
    loop->cancel(victim);
    if (++rounds < 10) loop->after(0ms, round);
  };
  loop->run([&] {
    loop->after(1ms, round);
    victim = loop->after(1ms, [&] { cancelled_ran = true; });
    const auto end = Loop::Clock::now() + 3ms;
    while (Loop::Clock::now() < end) {
    }
  });
  EXPECT_TRUE(eventually([&] { return rounds == 10; }));
  EXPECT_FALSE(cancelled_ran);
}

TEST_P(LoopTest, TimersRunWhileASourceIsBusy) {
  auto loop = start(Polling::always);
  CountingSource source;
  std::atomic<bool> fired = false;
  loop->run([&] {
    loop->add(source);
    loop->after(5ms, [&] { fired = true; });
  });
  EXPECT_TRUE(eventually([&] { return fired.load(); }));
  loop->run([&] { loop->remove(source); });
}

// The thread.

TEST_P(LoopTest, AnIdleLoopSleeps) {
  auto loop = start();
  expect_asleep(*loop);
}

TEST_P(LoopTest, ALoopWithALateTimerSleeps) {
  auto loop = start();
  uint64_t timer = 0;
  loop->run([&] { timer = loop->after(1h, [] {}); });
  expect_asleep(*loop);
  loop->run([&] { loop->cancel(timer); });
}

TEST_P(LoopTest, TheThreadBearsItsName) {
  auto loop = start_or_fail({.use_io_uring = GetParam(), .name = "a-very-long-name"});
  std::array<char, 32> name{};
  loop->run([&] { ::pthread_getname_np(::pthread_self(), name.data(), name.size()); });
  EXPECT_STREQ(name.data(), "rw-a-very-long-");
}

TEST_P(LoopTest, TheThreadIsPinned) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof allowed, &allowed), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &allowed)) ++cpu;
  auto loop = start_or_fail({.use_io_uring = GetParam(), .cpu = cpu});
  loop->run([&] {
    cpu_set_t set;
    ::pthread_getaffinity_np(::pthread_self(), sizeof set, &set);
    EXPECT_EQ(CPU_COUNT(&set), 1);
    EXPECT_TRUE(CPU_ISSET(cpu, &set));
  });
}

TEST_P(LoopTest, AnImpossibleCpuIsAClearError) {
  for (const int cpu : {1023, 1024, -1}) {
    const auto loop = Loop::start({.use_io_uring = GetParam(), .cpu = cpu});
    ASSERT_FALSE(loop);
    EXPECT_NE(loop.error().to_string().find("no such CPU"), std::string::npos) << loop.error().to_string();
  }
}

TEST_P(LoopTest, ABrokenPipeDoesNotEndTheProcess) {
  auto loop = start();
  loop->run([] {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    ::close(ends[0]);
    EXPECT_EQ(::write(ends[1], "x", 1), -1);
    EXPECT_EQ(errno, EPIPE);
    ::close(ends[1]);
  });
}

// Where io_uring is forbidden.

void expect_fallback_without(long call) {
  std::jthread([call] {
    make_fail(call, EPERM);
    auto loop = start_or_fail({});
    EXPECT_FALSE(loop->uses_io_uring());
    int ran = 0;
    loop->run([&] { ++ran; });
    EXPECT_EQ(ran, 1);
  });
}

TEST(LoopFallback, WhereIoUringCannotBeSetUpEpollIsUsed) { expect_fallback_without(SYS_io_uring_setup); }
TEST(LoopFallback, WhereIoUringCannotBeEnteredEpollIsUsed) { expect_fallback_without(SYS_io_uring_enter); }

TEST(LoopThread, H317_a_worker_that_cannot_have_a_thread_is_an_error) {
  std::jthread([] {
    make_fail(SYS_clone3, EAGAIN);
    const auto loop = Loop::start({});
    ASSERT_FALSE(loop);
    EXPECT_EQ(loop.error().os_error, EAGAIN);
  });
}

TEST(LoopFallback, IoUringIsUsedWhereItMayBe) {
  std::ifstream disabled("/proc/sys/kernel/io_uring_disabled");
  int level = 0;
  if (disabled >> level && level != 0) GTEST_SKIP() << "kernel.io_uring_disabled is set";
  EXPECT_TRUE(start_or_fail({})->uses_io_uring());
}

}  // namespace
}  // namespace ringway::loop
