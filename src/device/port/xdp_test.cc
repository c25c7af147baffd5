// Interfaces of this machine by AF_XDP, for those who may make them: one end of a veth pair is ours, the
// other the host's. veth has AF_XDP in the driver, but no zero-copy.
#include "ringway/device/port/xdp.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/wait.h>

#include "ringway/device/port/receiver_test.h"

namespace ringway::port {
namespace {

using test::broadcast;
using test::Bytes;
using test::HostSide;
using test::TestReceiver;
using testing::HasSubstr;

bool shell(const std::string& command) { return std::system((command + " 2>/dev/null").c_str()) == 0; }

bool has_xdp() {
  return UniqueFd(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)).get() >= 0 || errno != EAFNOSUPPORT;
}

class XdpPortTest : public testing::TestWithParam<bool> {
 protected:
  // A pair of the port's queues, running.
  struct Pair {
    TestReceiver receiver;
    std::unique_ptr<Outlet> outlet;
    std::unique_ptr<Inlet> inlet;
  };

  void SetUp() override {
    if (!has_xdp()) GTEST_SKIP() << "this kernel has no AF_XDP";
    if (!make()) GTEST_SKIP() << "no permission to make interfaces";
  }
  void TearDown() override {
    stop();
    port_.reset();
    shell(fmt::format("ip link delete {}", ours_));
  }
  [[nodiscard]] bool make(unsigned queues = 1, unsigned mtu = 1500) const {
    const bool made = shell(
        fmt::format("ip link add {0} numrxqueues {2} numtxqueues {2} mtu {3} type veth peer name {1} "
                    "numrxqueues {2} numtxqueues {2} mtu {3} && ip link set {0} up && ip link set {1} up",
                    ours_, theirs_, queues, mtu));
    return made && test::is_running(ours_) && test::is_running(theirs_);
  }
  void remake(unsigned queues, unsigned mtu = 1500) const {
    ASSERT_TRUE(shell(fmt::format("ip link delete {}", ours_)));
    ASSERT_TRUE(make(queues, mtu));
  }
  [[nodiscard]] Result<std::unique_ptr<Port>> open(XdpOptions options = {}) const {
    options.interface = ours_;
    return open_xdp(options);
  }
  void start(const XdpOptions& options = {}) {
    auto opened = open(options);
    ASSERT_TRUE(opened) << opened.error().to_string();
    port_ = *std::move(opened);
    loop_ = *loop::Loop::start({.use_io_uring = GetParam()});
    const uint16_t count = std::max<uint16_t>(1, options.pairs);
    for (uint16_t i = 0; i < count; ++i) pairs_.push_back(std::make_unique<Pair>());
    loop_->run([&] {
      for (uint16_t i = 0; i < count; ++i) {
        pairs_[i]->outlet = port_->open_outlet(*loop_, i);
        if (i < port_->abilities().pairs)
          pairs_[i]->inlet = port_->open_inlet(*loop_, i, pairs_[i]->receiver);
      }
    });
    ASSERT_TRUE(TestReceiver::soon([&] { return port_->link().up; }));
  }
  void stop() {
    if (!loop_) return;
    loop_->run([&] { pairs_.clear(); });
    loop_.reset();
  }
  void send(const Bytes& frame, unsigned times = 1, size_t pair = 0) {
    const iovec piece{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    loop_->run([&] {
      for (unsigned i = 0; i < times; ++i) {
        Frame one{.offload = {}, .length = static_cast<uint32_t>(frame.size()), .pieces = {&piece, 1}};
        EXPECT_EQ(pairs_[pair]->outlet->send(one), Outlet::Sent::done);
      }
      pairs_[pair]->outlet->flush();
    });
  }
  [[nodiscard]] TestReceiver& receiver(size_t pair = 0) { return pairs_[pair]->receiver; }
  [[nodiscard]] uint64_t counter(std::string_view name) const {
    for (const Counter& one : port_->counters()) {
      if (one.name == name) return one.value;
    }
    ADD_FAILURE() << "there is no counter " << name;
    return 0;
  }

  const std::string ours_ = fmt::format("rwx{}", ::getpid());
  const std::string theirs_ = fmt::format("rwy{}", ::getpid());
  std::unique_ptr<Port> port_;
  std::unique_ptr<loop::Loop> loop_;
  std::vector<std::unique_ptr<Pair>> pairs_;
};

TEST_P(XdpPortTest, frames_leave_on_the_interface_and_arrive_from_it) {
  start();
  const HostSide host(theirs_);
  for (const size_t length : {60U, 1514U}) {
    send(broadcast(length));
    EXPECT_EQ(host.receive(), broadcast(length));
    ASSERT_TRUE(host.send(broadcast(length, 9)));
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver().has(broadcast(length, 9)); })) << length;
  }
  EXPECT_EQ(counter("xdp: frames to the interface"), 2);
  EXPECT_GE(counter("xdp: frames from the interface"), 2);
  EXPECT_EQ(port_->abilities().takes, 0);
  EXPECT_EQ(port_->abilities().gives, 0);
}

TEST_P(XdpPortTest, more_frames_than_the_memory_has_places_for_go_through_it_in_both_directions) {
  start();
  const HostSide host(theirs_);
  receiver().room_ = 100'000;
  for (unsigned round = 0; round < 40; ++round) {
    send(broadcast(100, static_cast<uint8_t>(round)), 128);
    for (unsigned i = 0; i < 128; ++i)
      ASSERT_EQ(host.receive(), broadcast(100, static_cast<uint8_t>(round))) << round << ' ' << i;
    for (unsigned i = 0; i < 128; ++i) ASSERT_TRUE(host.send(broadcast(200, static_cast<uint8_t>(round))));
  }
  EXPECT_TRUE(TestReceiver::soon([&] { return counter("xdp: frames from the interface") >= 40 * 128; }));
  EXPECT_EQ(counter("xdp: frames to the interface"), 40 * 128);
}

TEST_P(XdpPortTest, frames_wait_while_there_are_no_buffers) {
  start();
  const HostSide host(theirs_);
  loop_->run([&] { receiver().room_ = 0; });
  ASSERT_TRUE(host.send(broadcast(100)));
  ASSERT_TRUE(host.send(broadcast(101)));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(receiver().has(broadcast(100)));
  receiver().room_ = 100;
  loop_->run([&] { pairs_[0]->inlet->resume(); });
  EXPECT_TRUE(
      TestReceiver::soon([&] { return receiver().has(broadcast(100)) && receiver().has(broadcast(101)); }));
}

TEST_P(XdpPortTest, a_frame_longer_than_a_place_is_dropped_and_counted) {
  start();
  send(broadcast(2049));
  EXPECT_EQ(counter("xdp: dropped, longer than a frame of AF_XDP"), 1);
  EXPECT_EQ(counter("xdp: frames to the interface"), 0);
}

TEST_P(XdpPortTest, a_large_mtu_has_large_places_and_a_larger_one_is_refused) {
  remake(1, XdpSocket::max_mtu);
  start();
  const HostSide host(theirs_);
  send(broadcast(XdpSocket::max_mtu));
  EXPECT_EQ(host.receive(), broadcast(XdpSocket::max_mtu));
  ASSERT_TRUE(host.send(broadcast(XdpSocket::max_mtu, 3)));
  EXPECT_TRUE(TestReceiver::soon([&] { return receiver().has(broadcast(XdpSocket::max_mtu, 3)); }));
  stop();
  port_.reset();
  remake(1, XdpSocket::max_mtu + 1);
  const auto refused = open();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().to_string(), HasSubstr("MTU"));
}

TEST_P(XdpPortTest, an_interface_that_goes_and_comes_back_is_used_again) {
  start();
  ASSERT_TRUE(shell(fmt::format("ip link delete {}", ours_)));
  EXPECT_TRUE(TestReceiver::soon([&] { return !port_->link().up; }));
  send(broadcast(100));
  EXPECT_EQ(counter("xdp: dropped, the interface is gone"), 1);
  ASSERT_TRUE(make());
  for (unsigned round = 0; round < 2; ++round) {
    if (round > 0) remake(1);
    const HostSide host(theirs_);
    EXPECT_TRUE(TestReceiver::soon([&] {
      send(broadcast(77));
      return host.receive(20) == broadcast(77);
    }));
    EXPECT_TRUE(TestReceiver::soon(
        [&] { return host.send(broadcast(78 + round)) && receiver().has(broadcast(78 + round)); }));
    EXPECT_TRUE(TestReceiver::soon([&] { return port_->link().up; }));
  }
}

TEST_P(XdpPortTest, an_interface_that_is_down_is_a_link_that_is_down) {
  start();
  ASSERT_TRUE(shell(fmt::format("ip link set {} down", ours_)));
  EXPECT_TRUE(TestReceiver::soon([&] { return !port_->link().up; }));
  ASSERT_TRUE(shell(fmt::format("ip link set {} up", ours_)));
  EXPECT_TRUE(TestReceiver::soon([&] { return port_->link().up; }));
  const HostSide host(theirs_);
  send(broadcast(100));
  EXPECT_EQ(host.receive(), broadcast(100));
}

TEST_P(XdpPortTest, each_pair_has_a_queue_of_the_interface_and_further_ones_send_on_those) {
  remake(2);
  start({.pairs = 3});
  EXPECT_EQ(port_->abilities().pairs, 2);
  const HostSide host(theirs_);
  for (size_t pair = 0; pair < 3; ++pair) {
    send(broadcast(100 + pair), 1, pair);
    EXPECT_EQ(host.receive(), broadcast(100 + pair));
  }
  for (uint8_t i = 0; i < 10; ++i) ASSERT_TRUE(host.send(broadcast(200, i)));
  for (uint8_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(TestReceiver::soon(
        [&] { return receiver(0).has(broadcast(200, i)) || receiver(1).has(broadcast(200, i)); }));
  }
}

TEST_P(XdpPortTest, frames_of_other_queues_are_the_hosts_stacks) {
  remake(2);
  start({.queue = 1});
  EXPECT_EQ(port_->abilities().pairs, 1);
  const HostSide ours(ours_);
  const HostSide host(theirs_);
  // What the peer sends on its queue 0 arrives on ours of that number.
  const unsigned sent = 64;
  for (unsigned i = 0; i < sent; ++i) ASSERT_TRUE(host.send(broadcast(100 + i)));
  unsigned stack = 0;
  while (!ours.receive(200).empty()) ++stack;
  unsigned port = 0;
  for (unsigned i = 0; i < sent; ++i) port += receiver().has(broadcast(100 + i)) ? 1 : 0;
  EXPECT_EQ(stack + port, sent);
}

TEST_P(XdpPortTest, what_the_interface_cannot_do_is_told_in_words) {
  EXPECT_THAT(open({.queue = 1}).error().to_string(), HasSubstr("no such queue"));
  EXPECT_THAT(open({.mode = XdpMode::zero_copy}).error().to_string(), HasSubstr("no zero-copy"));
  const auto first = open({.mode = XdpMode::copy});
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_THAT(open().error().to_string(), HasSubstr("AF_XDP socket already"));
}

TEST_P(XdpPortTest, a_process_without_privileges_is_told_which_it_needs) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    const auto port = open();
    ::_exit(!port && port.error().to_string().contains("CAP_NET_RAW") ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_P(XdpPortTest, the_program_leaves_the_interface_with_the_port) {
  start();
  const std::string look = fmt::format("ip -d link show {} | grep -q prog/xdp", ours_);
  EXPECT_TRUE(shell(look));
  stop();
  port_.reset();
  EXPECT_FALSE(shell(look));
}

INSTANTIATE_TEST_SUITE_P(Pollers, XdpPortTest, testing::Bool(),
                         [](const auto& one) { return one.param ? "io_uring" : "epoll"; });

TEST(XdpPort, an_interface_that_is_not_there_is_refused) {
  EXPECT_THAT(open_xdp({.interface = "ringway-none"}).error().to_string(),
              HasSubstr("there is no such interface"));
  EXPECT_FALSE(open_xdp({.interface = ""}));
}

}  // namespace
}  // namespace ringway::port
