#include "ringway/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "ringway/base/unique_fd.h"

namespace ringway {
namespace {

// Standard error is a pipe of ours while a test runs. A line that blocks fails the test by a signal.
class Log : public testing::Test {
 protected:
  Log() : saved_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) {
    ::alarm(20);
    log::set_level(log::Level::info);
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    reader_.reset(ends[0]);
    EXPECT_EQ(::dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    ::close(ends[1]);
  }
  ~Log() override {
    ::dup2(saved_.get(), STDERR_FILENO);
    ::alarm(0);
  }

  std::string written() const {
    std::string all;
    std::array<char, 4096> part{};
    pollfd readable{.fd = reader_.get(), .events = POLLIN};
    while (::poll(&readable, 1, 0) == 1 && (readable.revents & POLLIN) != 0) {
      const ssize_t got = ::read(reader_.get(), part.data(), part.size());
      if (got <= 0) break;
      all.append(part.data(), static_cast<size_t>(got));
    }
    return all;
  }

  static size_t lines(const std::string& text) { return static_cast<size_t>(std::ranges::count(text, '\n')); }

  UniqueFd saved_;
  UniqueFd reader_;
};

TEST_F(Log, a_line_goes_to_standard_error) {
  log::warning("queue {} is broken", 3);
  const std::string text = written();
  EXPECT_NE(text.find("queue 3 is broken"), std::string::npos);
  EXPECT_EQ(lines(text), 1U);
}

TEST_F(Log, a_full_standard_error_does_not_block) {
  for (int i = 0; i < 10'000; ++i) log::warning("{}", std::string(100, 'x'));
  EXPECT_GT(lines(written()), 100U);
}

TEST_F(Log, a_line_longer_than_the_room_in_standard_error_does_not_block) {
  log::warning("{}", std::string(1 << 20, 'x'));
  const std::string text = written();
  EXPECT_GT(text.size(), 1000U);
  EXPECT_EQ(lines(text), 1U);
}

TEST_F(Log, a_closed_standard_error_does_not_end_the_process) {
  ::close(STDERR_FILENO);
  log::warning("nobody reads this");
}

TEST_F(Log, a_standard_error_without_reader_does_not_end_the_process) {
  reader_.reset();
  log::warning("nobody reads this");  // SIGPIPE has its default action here
}

TEST_F(Log, lines_below_the_level_are_not_written) {
  log::set_level(log::Level::error);
  log::warning("quiet");
  log::set_level(log::Level::info);
  EXPECT_EQ(written(), "");
  EXPECT_FALSE(log::enabled(log::Level::debug));
  EXPECT_TRUE(log::enabled(log::Level::info));
}

TEST_F(Log, what_a_peer_can_cause_is_limited_in_each_second_and_the_rest_is_counted) {
  log::Limited limited(3);
  for (int i = 0; i < 1000; ++i) limited.warning("bad message");
  const std::string first = written();
  EXPECT_GE(lines(first), 3U);
  EXPECT_LE(lines(first), 7U);  // a second may have ended meanwhile
  ::usleep(1'100'000);
  limited.warning("bad message");
  const std::string second = written();
  EXPECT_NE(second.find("similar lines were held back"), std::string::npos);
  EXPECT_NE(second.find("bad message"), std::string::npos);
}

}  // namespace
}  // namespace ringway
