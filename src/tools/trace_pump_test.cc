#include "ringway/tools/trace_pump.h"

#include <gtest/gtest.h>

#include "ringway/user/peer_test.h"

namespace ringway::tools {
namespace {

using namespace user::testing;
using user::Frame;

// A sender, the pump, and a receiver, all on one thread, so that what waits in a socket is known.
class PumpTest : public ::testing::Test {
 protected:
  PumpTest() {
    auto there = user::socket_pair();
    auto on = user::socket_pair();
    sender = Peer(std::move((*there)[0]));
    from_ = std::move((*there)[1]);
    to_ = std::move((*on)[0]);
    receiver_ = std::move((*on)[1]);
    pump.emplace(from_.get(), to_.get(), nullptr);
  }
  struct Got {
    size_t bytes = 0;
    size_t fds = 0;
    bool operator==(const Got&) const = default;
  };
  // What comes with one read of `size` bytes.
  Got receive(size_t size) {
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(253 * sizeof(int))> control{};
    Bytes bytes(size);
    iovec whole{.iov_base = bytes.data(), .iov_len = size};
    msghdr message{
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
    const ssize_t got = ::recvmsg(receiver_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got <= 0) return {};
    received.insert(received.end(), bytes.begin(), bytes.begin() + got);
    const cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    if (rights == nullptr) return {.bytes = static_cast<size_t>(got)};
    const size_t fds = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < fds; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof fd, sizeof fd);
      ::close(fd);
    }
    return {.bytes = static_cast<size_t>(got), .fds = fds};
  }
  // Sends `bytes` with a file descriptor at `place` before anything is read.
  void send_with_fd_at(size_t place, const Bytes& bytes) {
    sender.send(std::span(bytes).first(place));
    sender.send(std::span(bytes).subspan(place), some_fds(1));
    for (int i = 0; i < 4; ++i) pump->read();
  }
  int from() const { return from_.get(); }

  Peer sender;
  std::optional<Pump> pump;
  Bytes received;

 private:
  UniqueFd from_;
  UniqueFd to_;
  UniqueFd receiver_;
};

TEST_F(PumpTest, an_fd_in_the_middle_of_a_message_stays_where_it_was) {
  const Bytes bytes = bytes_of(u64_frame(12, user::version, 3));
  for (size_t place = 1; place < bytes.size(); ++place) {
    received.clear();
    send_with_fd_at(place, bytes);
    const auto message = pump->framer().take();
    ASSERT_TRUE(message) << place;
    ASSERT_EQ(message->fds.size(), 1U) << place;
    EXPECT_EQ(message->fds[0].offset, place);
    EXPECT_EQ(receive(place), (Got{.bytes = place})) << "nothing comes with what was sent before";
    EXPECT_EQ(receive(100), (Got{.bytes = bytes.size() - place, .fds = 1}));
    EXPECT_EQ(received, bytes);
  }
}

TEST_F(PumpTest, an_fd_inside_a_large_payload_stays_where_it_was) {
  Frame frame{.header = {.request = 5, .size = 20'000}, .payload = Bytes(20'000, std::byte{7}), .fds = {}};
  const Bytes bytes = bytes_of(frame);
  send_with_fd_at(16'500, bytes);
  EXPECT_EQ(receive(16'500), Got{.bytes = 16'500});
  EXPECT_EQ(receive(100'000), (Got{.bytes = bytes.size() - 16'500, .fds = 1}));
  EXPECT_EQ(received, bytes);
}

TEST_F(PumpTest, credentials_that_the_sender_asks_for_are_not_taken_for_fds) {
  constexpr int yes = 1;
  ASSERT_EQ(::setsockopt(from(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes), 0);
  auto on = user::socket_pair();
  Pump other(from(), (*on)[0].get(), nullptr);
  const Bytes bytes = bytes_of(u64_frame(12, user::version, 3));
  sender.send(std::span(bytes).first(4));
  sender.send(std::span(bytes).subspan(4), some_fds(1));
  for (int i = 0; i < 4; ++i) other.read();
  const auto message = other.framer().take();
  ASSERT_TRUE(message);
  EXPECT_EQ(message->fds.at(0).offset, 4U);
}

TEST_F(PumpTest, a_receiver_that_does_not_read_is_owed_a_bounded_number_of_fds) {
  constexpr size_t fds_of_one = 100;
  const auto fds = some_fds(fds_of_one);
  const Bytes bytes = bytes_of(empty_frame(3));
  constexpr size_t most = 1000 + fds_of_one;
  size_t read = 0;
  bool stopped = false;
  for (size_t i = 0; i < 10'000 && !stopped; ++i) {
    sender.send(bytes, fds);
    pump->read();
    if (const auto seen = pump->framer().take()) read += seen->fds.size();
    stopped = !pump->wants_to_read();
  }
  ASSERT_TRUE(stopped);
  // What is read again is at most what has been passed on, and everything arrives.
  size_t arrived = 0;
  for (int i = 0; i < 20'000 && arrived < read; ++i) {
    const Got got = receive(bytes.size());
    arrived += got.fds;
    if (got.bytes == 0) {
      EXPECT_LE(read - arrived, most);
      pump->write();
    }
  }
  EXPECT_EQ(arrived, read);
  EXPECT_TRUE(pump->wants_to_read());
}

TEST_F(PumpTest, a_receiver_that_does_not_read_is_owed_a_bounded_number_of_pieces) {
  const Bytes bytes = bytes_of(empty_frame(3));
  size_t sent = 0;
  while (pump->wants_to_read() && sent < 100'000) {
    sender.send(bytes);
    pump->read();
    ++sent;
  }
  ASSERT_FALSE(pump->wants_to_read());
  while (receive(1 << 16).bytes > 0) pump->write();
  EXPECT_EQ(received.size(), sent * bytes.size());
  EXPECT_TRUE(pump->wants_to_read());
}

}  // namespace
}  // namespace ringway::tools
