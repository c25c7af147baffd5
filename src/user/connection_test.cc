#include "ringway/user/connection.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include <csignal>

#include "ringway/user/peer_test.h"

namespace ringway::user {
namespace {

using namespace testing;
using ::testing::HasSubstr;

std::future<Result<Frame>> receiving(const std::shared_ptr<Connection>& connection,
                                     Connection::Deadline deadline = {}) {
  return std::async(std::launch::async, [connection, deadline] { return connection->receive(deadline); });
}

TEST(Connection, what_is_sent_arrives_with_its_files) {
  auto [peer, connection] = make_pair();
  Frame frame = u64_frame(12, version, 3);
  frame.fds = some_fds(8);
  ASSERT_TRUE(connection->send(frame));
  const Frame arrived = peer.receive();
  EXPECT_EQ(to_hex(bytes_of(arrived)), to_hex(bytes_of(frame)));
  EXPECT_EQ(arrived.fds.size(), 8U);
}

TEST(Connection, what_arrives_is_received_with_its_files) {
  auto [peer, connection] = make_pair();
  Frame frame = u64_frame(12, version, 3);
  frame.fds = some_fds(8);
  peer.send(frame);
  auto arrived = connection->receive();
  ASSERT_TRUE(arrived);
  EXPECT_EQ(to_hex(bytes_of(*arrived)), to_hex(bytes_of(frame)));
  EXPECT_EQ(arrived->fds.size(), 8U);
  EXPECT_EQ(arrived->fd_fault, nullptr);
}

TEST(Connection, received_files_are_closed_on_exec) {
  auto [peer, connection] = make_pair();
  Frame frame = u64_frame(12, version, 3);
  frame.fds = some_fds(1);
  peer.send(frame);
  auto arrived = connection->receive();
  ASSERT_TRUE(arrived);
  EXPECT_NE(::fcntl(arrived->fds.at(0).get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Connection, a_message_in_pieces_of_every_size_is_whole) {
  const Bytes bytes = bytes_of(u64_frame(12, version, 0x1122334455667788));
  for (size_t first = 1; first < bytes.size(); ++first) {
    auto [peer, connection] = make_pair();
    auto arrived = receiving(connection);
    peer.send(std::span(bytes).first(first), some_fds(1));
    std::this_thread::sleep_for(1ms);
    peer.send(std::span(bytes).subspan(first));
    auto frame = arrived.get();
    ASSERT_TRUE(frame);
    EXPECT_EQ(to_hex(bytes_of(*frame)), to_hex(bytes));
    EXPECT_EQ(frame->fds.size(), 1U) << "files of the first bytes";
  }
}

TEST(Connection, H019_N024_files_that_come_late_are_closed_and_said_to_be) {
  const Bytes bytes = bytes_of(u64_frame(12, version, 3));
  for (const size_t first : {12, 19}) {
    auto [peer, connection] = make_pair();
    auto files = some_fds(3);
    const size_t before = open_fds();
    peer.send(std::span(bytes).first(first));
    peer.send(std::span(bytes).subspan(first), files);
    {
      auto frame = connection->receive();
      ASSERT_TRUE(frame);
      EXPECT_TRUE(frame->fds.empty());
      EXPECT_THAT(frame->fd_fault, HasSubstr("after the first bytes"));
    }
    EXPECT_EQ(open_fds(), before);
  }
}

TEST(Connection, H023_more_files_than_eight_are_closed_and_said_to_be) {
  for (const size_t count : {9, 32, 253}) {
    auto [peer, connection] = make_pair();
    auto files = some_fds(count);
    const size_t before = open_fds();
    peer.send(bytes_of(empty_frame(3)), files);
    {
      auto frame = connection->receive();
      ASSERT_TRUE(frame);
      EXPECT_TRUE(frame->fds.empty());
      EXPECT_THAT(frame->fd_fault, HasSubstr("more than 8"));
    }
    EXPECT_EQ(open_fds(), before);
  }
}

TEST(Connection, H025_files_that_the_kernel_could_not_give_us_are_said_to_be_lost) {
  auto [peer, connection] = make_pair();
  {
    auto files = some_fds(4);
    peer.send(bytes_of(u64_frame(12, version, 3)), files);
  }
  const size_t before = open_fds();
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const int lowest_free = ::dup(0);
  ::close(lowest_free);
  const rlimit two_more{.rlim_cur = static_cast<rlim_t>(lowest_free) + 2, .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &two_more), 0);
  auto frame = connection->receive();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_TRUE(frame);
  EXPECT_TRUE(frame->fds.empty());
  EXPECT_THAT(frame->fd_fault, HasSubstr("were lost"));
  EXPECT_EQ(open_fds(), before);
}

TEST(Connection, H026_credentials_that_come_with_a_message_are_ignored) {
  auto ends = socket_pair();
  ASSERT_TRUE(ends);
  const int on = 1;
  ASSERT_EQ(::setsockopt((*ends)[1].get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
  const Peer peer(std::move((*ends)[0]));
  auto connection = Connection::adopt(std::move((*ends)[1]));
  ASSERT_TRUE(connection);
  Frame sent = u64_frame(12, version, 3);
  sent.fds = some_fds(1);
  peer.send(sent);
  auto frame = (*connection)->receive();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->fds.size(), 1U);
  EXPECT_EQ(frame->fd_fault, nullptr);
}

TEST(Connection, H026_a_pidfd_that_comes_with_a_message_is_closed) {
  constexpr int so_passpidfd = 76;  // SO_PASSPIDFD, newer than our headers
  auto ends = socket_pair();
  ASSERT_TRUE(ends);
  const int on = 1;
  if (::setsockopt((*ends)[1].get(), SOL_SOCKET, so_passpidfd, &on, sizeof on) != 0)
    GTEST_SKIP() << "needs Linux 6.5";
  const Peer peer(std::move((*ends)[0]));
  auto connection = Connection::adopt(std::move((*ends)[1]));
  ASSERT_TRUE(connection);
  const size_t before = open_fds();
  peer.send(u64_frame(12, version, 3));
  auto frame = (*connection)->receive();
  ASSERT_TRUE(frame);
  EXPECT_TRUE(frame->fds.empty());
  EXPECT_EQ(open_fds(), before);
}

TEST(Connection, H014_the_end_of_a_peer_is_no_violation_wherever_it_comes) {
  const Bytes bytes = bytes_of(u64_frame(12, version, 3));
  for (size_t count = 0; count < bytes.size(); ++count) {
    auto [peer, connection] = make_pair();
    if (count > 0) peer.send(std::span(bytes).first(count), some_fds(1));
    peer.close();
    const size_t before = open_fds();
    auto frame = connection->receive();
    ASSERT_FALSE(frame);
    EXPECT_EQ(frame.error().fault, Fault::gone);
    EXPECT_EQ(open_fds(), before);
  }
}

TEST(Connection, H001_the_rest_of_a_message_is_waited_for_a_bounded_time) {
  const Bytes bytes = bytes_of(u64_frame(12, version, 3));
  for (const size_t count : {1, 11, 12, 19}) {
    auto [peer, connection] = make_pair({.message_time_out = 50ms});
    peer.send(std::span(bytes).first(count));
    auto frame = connection->receive();
    ASSERT_FALSE(frame);
    EXPECT_EQ(frame.error().fault, Fault::violation);
    EXPECT_THAT(frame.error().what, HasSubstr("did not come in time"));
  }
}

TEST(Connection, a_peer_that_sends_single_bytes_slowly_is_not_waited_for_longer) {
  auto [peer, connection] = make_pair({.message_time_out = 100ms});
  auto arrived = receiving(connection);
  const Bytes bytes = bytes_of(u64_frame(12, version, 3));
  const auto start = Connection::Clock::now();
  for (const std::byte one : std::span(bytes).first(10)) {
    peer.send(std::span(&one, 1));
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_FALSE(arrived.get());
  EXPECT_LT(Connection::Clock::now() - start, 1s);
}

TEST(Connection, the_first_byte_is_waited_for_until_the_deadline) {
  auto [peer, connection] = make_pair();
  auto frame = connection->receive(Connection::Clock::now() + 30ms);
  ASSERT_FALSE(frame);
  EXPECT_THAT(frame.error().what, HasSubstr("no message came in time"));
}

TEST(Connection, close_and_stop_end_a_wait_at_once) {
  auto stop = Stop::make();
  ASSERT_TRUE(stop);
  for (const bool by_stop : {false, true}) {
    auto [peer, connection] = make_pair({.stop = *stop});
    auto arrived = receiving(connection);
    std::this_thread::sleep_for(10ms);
    if (by_stop) (*stop)->request();
    if (!by_stop) connection->close();
    ASSERT_EQ(arrived.wait_for(500ms), std::future_status::ready);
    EXPECT_EQ(arrived.get().error().fault, Fault::gone);
  }
}

TEST(Connection, signals_do_not_disturb_a_wait) {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);  // without SA_RESTART
  auto [peer, connection] = make_pair();
  std::atomic<pthread_t> receiver{};
  auto arrived = std::async(std::launch::async, [&, c = connection] {
    receiver = ::pthread_self();
    return c->receive();
  });
  while (receiver == pthread_t{}) std::this_thread::yield();
  for (int i = 0; i < 50; ++i) {
    ::pthread_kill(receiver, SIGUSR1);
    std::this_thread::sleep_for(1ms);
  }
  peer.send(empty_frame(3));
  EXPECT_TRUE(arrived.get());
}

TEST(Connection, a_large_message_is_sent_in_as_many_pieces_as_the_peer_takes) {
  auto ends = socket_pair();
  ASSERT_TRUE(ends);
  const int small = 1;  // the kernel's minimum
  ::setsockopt((*ends)[1].get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  const Peer peer(std::move((*ends)[0]));
  auto connection = Connection::adopt(std::move((*ends)[1]));
  ASSERT_TRUE(connection);
  Frame frame = empty_frame(26);
  frame.payload.resize(max_payload);
  for (size_t i = 0; i < frame.payload.size(); ++i) frame.payload[i] = static_cast<std::byte>(i * 7);
  frame.header.size = max_payload;
  auto sent = std::async(std::launch::async, [&] {
    for (int i = 0; i < 20; ++i) {
      if (auto result = (*connection)->send(frame); !result) return result;
    }
    return Result<>{};
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(bytes_of(peer.receive()), bytes_of(frame));
  EXPECT_TRUE(sent.get());
}

TEST(Connection, a_peer_that_does_not_read_is_waited_for_until_the_deadline) {
  auto [peer, connection] = make_pair();
  const Frame frame = empty_frame(1);
  const Connection::Deadline deadline = Connection::Clock::now() + 100ms;
  Result<> sent;
  while (sent) sent = connection->send(frame, deadline);
  EXPECT_EQ(sent.error().fault, Fault::violation);
}

TEST(Connection, sending_to_a_peer_that_has_left_is_no_signal_but_an_error) {
  auto [peer, connection] = make_pair();
  peer.close();
  const auto sent = connection->send(empty_frame(1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().fault, Fault::gone);
}

TEST(Connection, hung_up_tells_whether_the_peer_has_left) {
  auto [peer, connection] = make_pair();
  EXPECT_FALSE(connection->hung_up());
  peer.send(empty_frame(1));
  EXPECT_FALSE(connection->hung_up());
  peer.close();
  EXPECT_TRUE(connection->hung_up());
}

TEST(Connection, only_stream_sockets_and_pipes_are_adopted) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  EXPECT_TRUE(Connection::adopt(UniqueFd(ends[1])));
  EXPECT_FALSE(Connection::adopt(some_fd()));
  EXPECT_FALSE(Connection::adopt(UniqueFd(::memfd_create("file", MFD_CLOEXEC))));
  EXPECT_FALSE(Connection::adopt(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))));
  EXPECT_FALSE(Connection::adopt(UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0))));
  EXPECT_FALSE(Connection::adopt(UniqueFd(::open("/", O_RDONLY | O_CLOEXEC))));
  EXPECT_FALSE(Connection::adopt(UniqueFd()));
}

TEST(Connection, H031_a_full_blocking_pipe_is_waited_for_until_the_deadline) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  auto connection = Connection::adopt(UniqueFd(ends[1]));
  ASSERT_TRUE(connection);
  const Frame frame = empty_frame(1);
  const Connection::Deadline deadline = Connection::Clock::now() + 100ms;
  Result<> sent;
  while (sent) sent = (*connection)->send(frame, deadline);
  EXPECT_EQ(sent.error().fault, Fault::violation);
}

TEST(Connection, files_cannot_go_over_a_pipe) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  auto connection = Connection::adopt(UniqueFd(ends[1]));
  ASSERT_TRUE(connection);
  Frame frame = empty_frame(9);
  frame.fds = some_fds(1);
  EXPECT_FALSE((*connection)->send(frame));
  EXPECT_FALSE((*connection)->can_receive());
}

TEST(Connection, the_observer_sees_frames_that_are_refused_as_well) {
  std::vector<uint32_t> seen;
  auto [peer, connection] =
      make_pair({.observer = [&](Direction, const Frame& frame) { seen.push_back(frame.header.request); }});
  peer.send(empty_frame(7, 0));
  EXPECT_FALSE(connection->receive());
  EXPECT_EQ(seen, (std::vector<uint32_t>{7}));
}

}  // namespace
}  // namespace ringway::user
