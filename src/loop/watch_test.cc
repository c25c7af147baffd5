#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "ringway/loop/loop_testing.h"

namespace ringway::loop {
namespace {

using namespace testing;

class WatchTest : public LoopTest {
 protected:
  // Adds and watches, and waits until the source sleeps.
  static void add_parked(Loop& loop, CountingSource& source, const Signal& signal) {
    loop.run([&] {
      loop.add(source);
      ASSERT_TRUE(loop.watch(source, signal));
    });
    ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  }
  static void remove(Loop& loop, CountingSource& source) {
    loop.run([&] { loop.remove(source); });
  }
};
RINGWAY_BOTH_POLLERS(WatchTest);

TEST_P(WatchTest, AKickWakesAParkedSourceEveryTime) {
  for (const int flags : {0, static_cast<int>(EFD_NONBLOCK)}) {
    auto loop = start(Polling::never);
    CountingSource source;
    Eventfd kick(flags);
    add_parked(*loop, source, kick.signal);
    for (int i = 1; i <= 100; ++i) {
      ++source.work;
      kick.kick();
      ASSERT_TRUE(eventually([&] { return source.done == i && source.parks == i + 1; }));
    }
    EXPECT_EQ(source.unparks, 100);
    EXPECT_FALSE(kick.signal.take());
    remove(*loop, source);
  }
}

TEST_P(WatchTest, AKickThatCameBeforeTheWatchCounts) {
  auto loop = start(Polling::never);
  CountingSource source;
  loop->run([&] { loop->add(source); });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  Eventfd kick;
  kick.kick();
  loop->run([&] { ASSERT_TRUE(loop->watch(source, kick.signal)); });
  EXPECT_TRUE(eventually([&] { return source.unparks == 1; }));
  remove(*loop, source);
}

TEST_P(WatchTest, APipeWakesToo) {
  auto loop = start(Polling::never);
  CountingSource source;
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd writer(ends[1]);
  const Signal signal = *Signal::adopt(UniqueFd(ends[0]));
  add_parked(*loop, source, signal);
  for (int i = 1; i <= 20; ++i) {
    ++source.work;
    const uint64_t one = 1;
    ASSERT_EQ(::write(writer.get(), &one, sizeof one), 8);
    ASSERT_TRUE(eventually([&] { return source.done == i && source.parks == i + 1; }));
  }
  writer.reset();  // the peer goes: perhaps a last wake-up, but no endless ones
  std::this_thread::sleep_for(20ms);
  expect_asleep(*loop);
  remove(*loop, source);
}

TEST_P(WatchTest, ASemaphoreThatIsNeverEmptyDoesNotKeepTheLoopAwake) {
  auto loop = start();
  CountingSource source;
  Eventfd kick(EFD_SEMAPHORE);
  add_parked(*loop, source, kick.signal);
  kick.kick(1ULL << 62);
  ASSERT_TRUE(eventually([&] { return source.unparks >= 1 && source.parked; }));
  expect_asleep(*loop);
  ++source.work;
  kick.kick();
  EXPECT_TRUE(eventually([&] { return source.done == 1; }));
  remove(*loop, source);
}

TEST_P(WatchTest, AnotherSignalReplacesTheFirst) {
  auto loop = start(Polling::never);
  CountingSource source;
  Eventfd second;
  {
    Eventfd first;
    add_parked(*loop, source, first.signal);
    loop->run([&] { ASSERT_TRUE(loop->watch(source, second.signal)); });
    first.kick();
  }
  std::this_thread::sleep_for(10ms);
  EXPECT_EQ(source.unparks, 0);
  ++source.work;
  second.kick();
  EXPECT_TRUE(eventually([&] { return source.done == 1; }));
  remove(*loop, source);
}

TEST_P(WatchTest, AfterUnwatchTheSignalMayGoWhileItsPeerGoesOnKicking) {
  auto loop = start(Polling::never);
  CountingSource source;
  loop->run([&] { loop->add(source); });
  for (int i = 0; i < 200; ++i) {
    auto kick = std::make_unique<Eventfd>();
    const UniqueFd peer = *kick->writer.duplicate();
    loop->run([&] { ASSERT_TRUE(loop->watch(source, kick->signal)); });
    const uint64_t one = 1;
    ASSERT_EQ(::write(peer.get(), &one, sizeof one), 8);
    loop->run([&] {
      loop->unwatch(source);
      kick.reset();
    });
    ASSERT_EQ(::write(peer.get(), &one, sizeof one), 8);
  }
  const int unparks = source.unparks;
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(source.unparks, unparks);
  remove(*loop, source);
}

TEST_P(WatchTest, WatchAndUnwatchInOneTurnLeaveNothingBehind) {
  auto loop = start(Polling::never);
  CountingSource source;
  Eventfd kick;
  loop->run([&] {
    loop->add(source);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(loop->watch(source, kick.signal));
      loop->unwatch(source);
    }
  });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  kick.kick();
  std::this_thread::sleep_for(10ms);
  EXPECT_EQ(source.unparks, 0);
  remove(*loop, source);
}

TEST_P(WatchTest, ASourceThatIsRemovedIsNotTouchedByItsLastKicks) {
  auto loop = start(Polling::never);
  Eventfd kick;
  for (int i = 0; i < 500; ++i) {
    auto source = std::make_unique<CountingSource>();
    loop->run([&] {
      loop->add(*source);
      ASSERT_TRUE(loop->watch(*source, kick.signal));
    });
    kick.kick();
    loop->run([&] {
      loop->remove(*source);
      source.reset();
    });
  }
}

// A peer that kicks without end.
class Storm {
 public:
  explicit Storm(const Eventfd& kick)
      : thread_([&kick](const std::stop_token& stop) {
          while (!stop.stop_requested()) kick.kick();
        }) {}

 private:
  std::jthread thread_;
};

TEST_P(WatchTest, AStormOfKicksDoesNotStarveOthers) {
  for (const Polling polling : {Polling::adaptive, Polling::never}) {
    auto loop = start(polling);
    CountingSource victim;
    CountingSource attacked;
    Eventfd calm;
    Eventfd stormy(EFD_NONBLOCK);
    add_parked(*loop, victim, calm.signal);
    add_parked(*loop, attacked, stormy.signal);
    const Storm storm(stormy);
    ASSERT_TRUE(eventually([&] { return attacked.unparks > 10; }));
    for (int i = 1; i <= 50; ++i) {
      ++victim.work;
      calm.kick();
      ASSERT_TRUE(eventually([&] { return victim.done == i; }));
      loop->run([] {});
    }
    loop->run([&] {
      loop->remove(victim);
      loop->remove(attacked);
    });
  }
}

// A peer that asks for nothing while notifications are off, and kicks while they are on: as a driver does.
// Everything that it makes available is taken, whatever the moment.
TEST_P(WatchTest, OfAHundredThousandKicksNoneIsLost) {
  for (const Polling polling : {Polling::never, Polling::adaptive}) {
    const int64_t rounds = polling == Polling::never ? 100'000 : 20'000;
    auto loop = start(polling);
    CountingSource source;
    Eventfd kick(EFD_NONBLOCK);
    add_parked(*loop, source, kick.signal);
    for (int64_t i = 1; i <= rounds; ++i) {
      source.work.store(i);
      if (source.wants_notification.load()) kick.kick();
      if (i % 3 == 0) continue;  // sometimes the next comes at once
      const auto end = Loop::Clock::now() + 20s;
      while (source.done != i && Loop::Clock::now() < end) std::this_thread::yield();
      ASSERT_EQ(source.done, i);
    }
    EXPECT_TRUE(eventually([&] { return source.done == rounds && source.parked; }));
    remove(*loop, source);
  }
}

TEST_P(WatchTest, KicksAndPostsFromSeveralThreadsAreAllServed) {
  auto loop = start(Polling::never);
  std::array<CountingSource, 3> sources;
  std::array<Eventfd, 3> kicks;
  for (size_t i = 0; i < sources.size(); ++i) add_parked(*loop, sources[i], kicks[i].signal);
  int posted = 0;
  {
    std::vector<std::jthread> peers;
    for (size_t i = 0; i < sources.size(); ++i) {
      peers.emplace_back([&, i] {
        for (int round = 0; round < 10'000; ++round) {
          ++sources[i].work;
          if (sources[i].wants_notification.load()) kicks[i].kick();
          if (round % 10 == 0) loop->post([&] { ++posted; });
        }
      });
    }
  }
  for (auto& source : sources) EXPECT_TRUE(eventually([&] { return source.done == 10'000; }));
  loop->run([&] {
    EXPECT_EQ(posted, 3000);
    for (auto& source : sources) loop->remove(source);
  });
}

// A pair of connected sockets; a source that asks for the first to be ready whenever it parks, and takes what
// is there.
class ReadySource : public CountingSource {
 public:
  ReadySource(Loop& loop, int fd, short events = POLLIN) : loop_(loop), fd_(fd), events_(events) {}
  bool poll() override {
    ++polls;
    char bytes[16];
    bool any = false;
    while (events_ == POLLIN && ::recv(fd_, bytes, sizeof bytes, MSG_DONTWAIT) > 0) any = ++done > 0;
    return any;
  }
  bool park() override {
    EXPECT_TRUE(loop_.wake_when_ready(*this, fd_, events_));
    return CountingSource::park();
  }

 private:
  Loop& loop_;
  int fd_;
  short events_;
};

struct Sockets {
  Sockets() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0); }
  ~Sockets() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  int ends[2] = {-1, -1};
};

TEST_P(WatchTest, ASocketWithSomethingToReadWakesItsSourceEveryTime) {
  auto loop = start(Polling::never);
  Sockets sockets;
  ReadySource source(*loop, sockets.ends[0]);
  source.work = source.done.load();
  loop->run([&] { loop->add(source); });
  for (int i = 1; i <= 100; ++i) {
    source.work = i;
    ASSERT_EQ(::send(sockets.ends[1], "x", 1, 0), 1);
    ASSERT_TRUE(eventually([&] { return source.done == i && source.parked; })) << i;
  }
  expect_asleep(*loop);
  remove(*loop, source);
}

TEST_P(WatchTest, WhatIsReadyAlreadyWakesAtOnceAndIsNotTaken) {
  auto loop = start(Polling::never);
  Sockets sockets;
  CountingSource source;
  loop->run([&] { loop->add(source); });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  ASSERT_EQ(::send(sockets.ends[1], "x", 1, 0), 1);
  loop->run([&] { ASSERT_TRUE(loop->wake_when_ready(source, sockets.ends[0], POLLIN)); });
  EXPECT_TRUE(eventually([&] { return source.unparks == 1 && source.parked; }));
  expect_asleep(*loop);  // once, though it is still there
  char byte = 0;
  EXPECT_EQ(::recv(sockets.ends[0], &byte, 1, MSG_DONTWAIT), 1);
  remove(*loop, source);
}

TEST_P(WatchTest, RoomToWriteWakesWhenItIsAskedFor) {
  auto loop = start(Polling::never);
  Sockets sockets;
  while (::send(sockets.ends[0], "x", 1, MSG_DONTWAIT) == 1) continue;
  CountingSource source;
  loop->run([&] {
    loop->add(source);
    ASSERT_TRUE(loop->wake_when_ready(source, sockets.ends[0], POLLOUT));
  });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  expect_asleep(*loop);
  EXPECT_EQ(source.unparks, 0);
  char byte = 0;
  while (::recv(sockets.ends[1], &byte, 1, MSG_DONTWAIT) == 1) continue;
  EXPECT_TRUE(eventually([&] { return source.unparks == 1; }));
  remove(*loop, source);
}

TEST_P(WatchTest, ASourceMayHaveASignalAndASocketAndChangeTheSocket) {
  auto loop = start(Polling::never);
  Sockets first;
  Sockets second;
  CountingSource source;
  Eventfd kick;
  add_parked(*loop, source, kick.signal);
  loop->run([&] {
    ASSERT_TRUE(loop->wake_when_ready(source, first.ends[0], POLLIN));
    ASSERT_TRUE(loop->wake_when_ready(source, second.ends[0], POLLIN));
  });
  ASSERT_EQ(::send(first.ends[1], "x", 1, 0), 1);
  std::this_thread::sleep_for(10ms);
  EXPECT_EQ(source.unparks, 0);
  ASSERT_EQ(::send(second.ends[1], "x", 1, 0), 1);
  ASSERT_TRUE(eventually([&] { return source.unparks == 1 && source.parked; }));
  kick.kick();
  EXPECT_TRUE(eventually([&] { return source.unparks == 2; }));
  loop->run([&] { loop->unwatch_fd(source); });
  remove(*loop, source);
}

}  // namespace
}  // namespace ringway::loop
