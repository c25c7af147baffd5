#include "ringway/base/notifier.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace ringway {
namespace {

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

Pipe make_pipe(int flags = 0) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), flags), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

UniqueFd copy(const UniqueFd& fd) { return std::move(fd.duplicate().value()); }

// Through a file description of its own, so that the pipe's ends stay blocking.
void fill(const UniqueFd& writer) {
  const UniqueFd own(
      ::open(("/proc/self/fd/" + std::to_string(writer.get())).c_str(), O_WRONLY | O_NONBLOCK));
  const std::vector<char> page(4096);
  while (::write(own.get(), page.data(), page.size()) > 0) {
  }
  while (::write(own.get(), page.data(), 1) > 0) {
  }
}

uint64_t count_of(const UniqueFd& eventfd) {
  uint64_t count = 0;
  EXPECT_EQ(::read(eventfd.get(), &count, sizeof count), 8);
  return count;
}

// A test that blocks is a test that fails, in a known place.
class NotifierAndSignal : public testing::Test {
 protected:
  NotifierAndSignal() { ::alarm(20); }
  ~NotifierAndSignal() override { ::alarm(0); }
};

TEST_F(NotifierAndSignal, every_signal_of_an_eventfd_counts_one) {
  const UniqueFd event(::eventfd(0, 0));
  const auto notifier = Notifier::adopt(copy(event));
  ASSERT_TRUE(notifier);
  notifier->signal();
  notifier->signal();
  EXPECT_EQ(count_of(event), 2U);
}

TEST_F(NotifierAndSignal, a_saturated_blocking_eventfd_does_not_block) {
  const UniqueFd event(::eventfd(0, 0));
  const uint64_t all = UINT64_MAX - 1;
  ASSERT_EQ(::write(event.get(), &all, sizeof all), 8);
  const auto notifier = Notifier::adopt(copy(event));
  ASSERT_TRUE(notifier);
  notifier->signal();
  EXPECT_EQ(count_of(event), all);
}

TEST_F(NotifierAndSignal, a_full_blocking_pipe_does_not_block) {
  const Pipe pipe = make_pipe();
  fill(pipe.writer);
  const auto notifier = Notifier::adopt(copy(pipe.writer));
  ASSERT_TRUE(notifier);
  notifier->signal();
}

TEST_F(NotifierAndSignal, the_mode_of_the_peers_pipe_is_left_alone) {
  const Pipe pipe = make_pipe();
  const auto notifier = Notifier::adopt(copy(pipe.writer));
  const auto signal = Signal::adopt(copy(pipe.reader));
  ASSERT_TRUE(notifier && signal);
  EXPECT_EQ(::fcntl(pipe.writer.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(pipe.reader.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(NotifierAndSignal, a_signal_through_a_pipe_is_eight_bytes) {
  const Pipe pipe = make_pipe();
  const auto notifier = Notifier::adopt(copy(pipe.writer));
  ASSERT_TRUE(notifier);
  notifier->signal();
  std::array<uint64_t, 2> got{};
  EXPECT_EQ(::read(pipe.reader.get(), got.data(), sizeof got), 8);
  EXPECT_EQ(got[0], 1U);
}

TEST_F(NotifierAndSignal, a_pipe_whose_reader_has_left_does_not_end_the_process) {
  Pipe pipe = make_pipe();
  const auto notifier = Notifier::adopt(std::move(pipe.writer));
  ASSERT_TRUE(notifier);
  pipe.reader.reset();
  notifier->signal();  // SIGPIPE has its default action here
}

TEST_F(NotifierAndSignal, take_says_whether_there_was_an_event_and_takes_all) {
  const UniqueFd event(::eventfd(3, 0));
  const auto signal = Signal::adopt(copy(event));
  ASSERT_TRUE(signal);
  EXPECT_TRUE(signal->take());
  EXPECT_FALSE(signal->take());
}

TEST_F(NotifierAndSignal, take_empties_a_pipe_however_full_it_is) {
  const Pipe pipe = make_pipe();
  fill(pipe.writer);
  const auto signal = Signal::adopt(copy(pipe.reader));
  ASSERT_TRUE(signal);
  EXPECT_TRUE(signal->take());
  EXPECT_FALSE(signal->take());
}

TEST_F(NotifierAndSignal, take_ends_although_the_peer_fills_the_pipe_all_the_time) {
  const Pipe pipe = make_pipe(O_NONBLOCK);
  const auto signal = Signal::adopt(copy(pipe.reader));
  ASSERT_TRUE(signal);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    const std::vector<char> events(65536);
    while (!stop) EXPECT_NE(::write(pipe.writer.get(), events.data(), events.size()), 0);
  });
  for (int i = 0; i < 1000; ++i) signal->take();
  stop = true;
  writer.join();
}

TEST_F(NotifierAndSignal, take_of_a_pipe_without_writers_ends) {
  Pipe pipe = make_pipe();
  const auto signal = Signal::adopt(copy(pipe.reader));
  ASSERT_TRUE(signal);
  pipe.writer.reset();
  EXPECT_FALSE(signal->take());
}

// Another reader of the peer's blocking eventfd may win between "there is something" and our read.
TEST_F(NotifierAndSignal, take_never_blocks_even_if_another_reader_wins) {
  const UniqueFd event(::eventfd(0, 0));
  const auto signal = Signal::adopt(copy(event));
  ASSERT_TRUE(signal);
  std::atomic<bool> stop = false;
  std::thread thief([&] {
    const auto mine = Signal::adopt(copy(event));
    while (!stop) mine->take();
  });
  std::thread writer([&] {
    const uint64_t one = 1;
    while (!stop) {
      if (::write(event.get(), &one, sizeof one) != 8) break;
    }
  });
  for (int i = 0; i < 100'000; ++i) signal->take();
  stop = true;
  writer.join();
  thief.join();
}

TEST_F(NotifierAndSignal, an_eventfd_that_counts_as_a_semaphore_is_an_eventfd) {
  const UniqueFd event(::eventfd(2, EFD_SEMAPHORE));
  const auto signal = Signal::adopt(copy(event));
  ASSERT_TRUE(signal);
  EXPECT_TRUE(signal->take());
}

TEST_F(NotifierAndSignal, everything_that_is_neither_eventfd_nor_pipe_is_refused) {
  std::vector<UniqueFd> others;
  others.emplace_back(::memfd_create("notifier_test", 0));
  others.emplace_back(::open("/", O_RDONLY | O_DIRECTORY));
  others.emplace_back(::open("/dev/zero", O_RDWR));
  others.emplace_back(::open("/dev/null", O_RDWR));
  others.emplace_back(::epoll_create1(0));
  others.emplace_back(::timerfd_create(CLOCK_MONOTONIC, 0));
  others.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
  others.emplace_back(::socket(AF_UNIX, SOCK_DGRAM, 0));
  others.emplace_back(::open("/", O_PATH));
  for (const UniqueFd& other : others) {
    ASSERT_TRUE(other);
    EXPECT_FALSE(Notifier::adopt(copy(other)));
    EXPECT_FALSE(Signal::adopt(copy(other)));
  }
  EXPECT_FALSE(Notifier::adopt(UniqueFd()));
  EXPECT_FALSE(Signal::adopt(UniqueFd()));
}

TEST_F(NotifierAndSignal, what_is_refused_is_closed) {
  UniqueFd file(::memfd_create("notifier_test", 0));
  const int number = file.get();
  EXPECT_FALSE(Notifier::adopt(std::move(file)));
  EXPECT_LT(::fcntl(number, F_GETFD), 0);
}

}  // namespace
}  // namespace ringway
