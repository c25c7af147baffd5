// Interfaces of this machine as ports, for those who may make them: one end of a veth pair is ours, the other
// the host's.
#include "ringway/device/port/packet.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "ringway/device/port/receiver_test.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

using test::broadcast;
using test::Bytes;
using test::HostSide;
using test::TestReceiver;

class PacketPortTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!make()) GTEST_SKIP() << "no permission to make interfaces";
    auto opened = open_packet(ours_);
    ASSERT_TRUE(opened) << opened.error().to_string();
    port_ = *std::move(opened);
    loop_->run([&] {
      outlet_ = port_->open_outlet(*loop_, 0);
      inlet_ = port_->open_inlet(*loop_, 0, receiver_);
    });
  }
  void TearDown() override {
    loop_->run([&] {
      inlet_.reset();
      outlet_.reset();
    });
    if (port_) remove();
  }
  [[nodiscard]] bool make() const {
    const auto command = fmt::format(
        "ip link add {0} type veth peer name {1} 2>/dev/null && ip link set {0} up && ip link set {1} up",
        ours_, theirs_);
    return std::system(command.c_str()) == 0 && test::is_running(ours_) && test::is_running(theirs_);
  }
  void remove() const { EXPECT_EQ(std::system(fmt::format("ip link delete {}", ours_).c_str()), 0); }
  void send(const Bytes& frame) {
    const iovec piece{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    Frame one{.offload = {}, .length = static_cast<uint32_t>(frame.size()), .pieces = {&piece, 1}};
    loop_->run([&] { EXPECT_EQ(outlet_->send(one), Outlet::Sent::done); });
  }

  const std::string ours_ = fmt::format("rwa{}", ::getpid());
  const std::string theirs_ = fmt::format("rwb{}", ::getpid());
  std::unique_ptr<loop::Loop> loop_ = *loop::Loop::start({.use_io_uring = true});
  TestReceiver receiver_;
  std::unique_ptr<Port> port_;
  std::unique_ptr<Outlet> outlet_;
  std::unique_ptr<Inlet> inlet_;
};

TEST_F(PacketPortTest, frames_leave_on_the_interface_and_arrive_from_it) {
  const HostSide host(theirs_);
  for (const size_t length : {60U, 1514U}) {
    send(broadcast(length));
    EXPECT_EQ(host.receive(), broadcast(length));
    ASSERT_TRUE(host.send(broadcast(length, 9)));
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(length, 9)); })) << length;
  }
}

TEST_F(PacketPortTest, the_speed_is_the_interfaces) {
  EXPECT_EQ(port_->link().speed_mbps, 10'000U) << "what veth says";
}

TEST_F(PacketPortTest, a_tag_arrives_where_it_was_in_the_frame) {
  const HostSide host(theirs_);
  Bytes frame = broadcast(100);
  const Bytes tag{std::byte{0x81}, std::byte{0}, std::byte{0x20}, std::byte{10}};
  frame.insert(frame.begin() + 12, tag.begin(), tag.end());
  ASSERT_TRUE(host.send(frame));
  EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(frame); }));
}

TEST_F(PacketPortTest, frames_wait_while_there_are_no_buffers) {
  const HostSide host(theirs_);
  loop_->run([&] { receiver_.room_ = 0; });
  ASSERT_TRUE(host.send(broadcast(100)));
  ASSERT_TRUE(host.send(broadcast(100, 2)));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  receiver_.room_ = 100;
  loop_->run([&] { inlet_->resume(); });
  EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(100, 2)); }));
  EXPECT_TRUE(receiver_.has(broadcast(100)));
}

TEST_F(PacketPortTest, a_socket_that_is_handed_over_keeps_what_waits_in_it) {
  const HostSide host(theirs_);
  loop_->run([&] { receiver_.room_ = 0; });
  ASSERT_TRUE(host.send(broadcast(100)));
  auto handed = port_->hand_over();
  ASSERT_TRUE(handed);
  loop_->run([&] {
    inlet_.reset();
    outlet_.reset();
  });
  EXPECT_FALSE(resume_packet("lo", {.words = {}, .fds = {}}));
  auto next = resume_packet(ours_, *std::move(handed));
  ASSERT_TRUE(next) << next.error().to_string();
  port_ = *std::move(next);
  receiver_.room_ = 100;
  loop_->run([&] {
    outlet_ = port_->open_outlet(*loop_, 0);
    inlet_ = port_->open_inlet(*loop_, 0, receiver_);
  });
  EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(100)); }));
  send(broadcast(77));
  EXPECT_EQ(host.receive(), broadcast(77));
}

TEST_F(PacketPortTest, an_interface_that_goes_and_comes_back_is_used_again) {
  remove();
  EXPECT_TRUE(TestReceiver::soon([&] { return !port_->link().up; }));
  send(broadcast(100));
  ASSERT_TRUE(make());
  EXPECT_TRUE(TestReceiver::soon([&] { return port_->link().up; }));
  const HostSide host(theirs_);
  send(broadcast(77));
  EXPECT_EQ(host.receive(), broadcast(77));
  ASSERT_TRUE(host.send(broadcast(78)));
  EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(78)); }));
}

TEST_F(PacketPortTest, an_interface_that_is_down_is_a_link_that_is_down_until_it_is_up) {
  std::atomic<int> changes = 0;
  port_->on_link_change([&] { ++changes; });
  ASSERT_EQ(std::system(fmt::format("ip link set {} down", ours_).c_str()), 0);
  EXPECT_TRUE(TestReceiver::soon([&] { return !port_->link().up; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(600));  // it has been looked for meanwhile
  EXPECT_FALSE(port_->link().up);
  EXPECT_EQ(changes, 1);
  ASSERT_EQ(std::system(fmt::format("ip link set {} up", ours_).c_str()), 0);
  EXPECT_TRUE(TestReceiver::soon([&] { return port_->link().up; }));
  EXPECT_EQ(changes, 2);
  port_->on_link_change(nullptr);
  const HostSide host(theirs_);
  EXPECT_TRUE(TestReceiver::soon([&] { return host.send(broadcast(78)) && receiver_.has(broadcast(78)); }));
}

TEST(PacketPort, an_interface_that_is_not_there_is_refused) { EXPECT_FALSE(open_packet("ringway-none")); }

}  // namespace
}  // namespace ringway::port
