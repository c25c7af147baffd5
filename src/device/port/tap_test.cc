// Taps of this machine, for those who may make them.
#include "ringway/device/port/tap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>

#include <future>
#include <thread>

#include "ringway/device/port/receiver_test.h"
#include "ringway/device/port/tap_device.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

using test::broadcast;
using test::Bytes;
using test::HostSide;
using test::TestReceiver;

// Whether this process may make interfaces.
bool allowed() {
  const UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  std::strncpy(request.ifr_name, "rwprobe%d", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  return fd && ::ioctl(fd.get(), TUNSETIFF, &request) == 0;
}

class TapPortTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!allowed()) GTEST_SKIP() << "no permission to make a tap";
  }
  void TearDown() override { close(); }
  void open(uint16_t pairs = 1) {
    auto opened = open_tap({.name = name_, .fd = {}, .pairs = pairs});
    ASSERT_TRUE(opened) << opened.error().to_string();
    port_ = *std::move(opened);
    start();
  }
  void start() {
    loop_->run([&] {
      outlet_ = port_->open_outlet(*loop_, 0);
      inlet_ = port_->open_inlet(*loop_, 0, receiver_);
    });
  }
  void close() {
    loop_->run([&] {
      inlet_.reset();
      outlet_.reset();
    });
    port_.reset();
  }
  void send(const Bytes& frame, const Offload& offload = {}, size_t piece = SIZE_MAX) {
    std::vector<iovec> pieces;
    for (size_t at = 0; at < frame.size(); at += std::min(piece, frame.size() - at)) {
      pieces.push_back(
          {.iov_base = const_cast<std::byte*>(&frame[at]), .iov_len = std::min(piece, frame.size() - at)});
    }
    Frame one{.offload = offload, .length = static_cast<uint32_t>(frame.size()), .pieces = pieces};
    loop_->run([&] {
      EXPECT_EQ(outlet_->send(one), Outlet::Sent::done);
      outlet_->flush();
    });
  }
  [[nodiscard]] uint64_t counted(std::string_view name) const {
    for (const Counter& counter : port_->counters()) {
      if (counter.name == name) return counter.value;
    }
    ADD_FAILURE() << "no such counter: " << name;
    return 0;
  }
  // A tap that stays without anybody who has it open.
  void persist(bool there, bool many_queues = false) const {
    const UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ifreq request{};
    std::strncpy(request.ifr_name, name_.c_str(), IFNAMSIZ - 1);
    request.ifr_flags =
        static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (many_queues ? IFF_MULTI_QUEUE : 0));
    ASSERT_EQ(::ioctl(fd.get(), TUNSETIFF, &request), 0) << std::strerror(errno);
    ASSERT_EQ(::ioctl(fd.get(), TUNSETPERSIST, there ? 1 : 0), 0);
    if (!there) return;
    EXPECT_EQ(std::system(fmt::format("ip link set {} up", name_).c_str()), 0);
  }
  // Another has the tap, and lets go of it soon. Made where it is not there.
  [[nodiscard]] std::future<void> hold_for_a_moment() const {
    auto device = TapDevice::of_name(name_, false);
    EXPECT_TRUE(device);
    return std::async(std::launch::async, [queue = device->take_first()]() mutable {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      queue.reset();
    });
  }
  void remove() const { EXPECT_EQ(std::system(fmt::format("ip link delete {}", name_).c_str()), 0); }

  const std::string name_ = fmt::format("rwt{}", ::getpid());
  std::unique_ptr<loop::Loop> loop_ = *loop::Loop::start({.use_io_uring = GetParam()});
  TestReceiver receiver_;
  std::unique_ptr<Port> port_;
  std::unique_ptr<Outlet> outlet_;
  std::unique_ptr<Inlet> inlet_;
};

TEST_P(TapPortTest, frames_pass_both_ways_however_they_are_cut) {
  open();
  const HostSide host(name_);
  for (const size_t length : {60U, 200U, 1514U}) {
    send(broadcast(length), {}, 33);
    EXPECT_EQ(host.receive(), broadcast(length));
    ASSERT_TRUE(host.send(broadcast(length, 9)));
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(length, 9)); })) << length;
  }
  EXPECT_EQ(counted("tap: frames to the host"), 3U);
  EXPECT_GE(counted("tap: frames from the host"), 3U);
}

TEST_P(TapPortTest, a_tap_that_is_handed_over_keeps_what_waits_in_it) {
  for (const uint16_t pairs : {1, 2}) {
    open(pairs);
    const HostSide host(name_);
    loop_->run([&] { receiver_.room_ = 0; });
    for (uint8_t seed = 1; seed < 5; ++seed) ASSERT_TRUE(host.send(broadcast(100, seed)));
    auto handed = port_->hand_over();
    ASSERT_TRUE(handed) << handed.error().to_string();
    EXPECT_EQ(handed->fds.size(), pairs);
    auto next = resume_tap(name_, *std::move(handed));
    ASSERT_TRUE(next) << next.error().to_string();
    EXPECT_EQ((*next)->abilities().takes, port_->abilities().takes);
    EXPECT_TRUE((*next)->wish({.offloads = 0, .pairs = 1}));
    close();
    port_ = *std::move(next);
    receiver_.room_ = 100;
    start();
    for (uint8_t seed = 1; seed < 5; ++seed) {
      EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(100, seed)); })) << pairs;
    }
    send(broadcast(77));
    EXPECT_EQ(host.receive(), broadcast(77));
    close();
    receiver_.arrived_.clear();
  }
}

// UDP from many ports: the kernel spreads it over the queues.
Bytes datagram(uint8_t port) {
  constexpr std::array<unsigned char, 42> headers{
      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0,  0, 9, 8, 0, 0x45, 0, 0, 46, 0,  0, 0,
      0,    1,    17,   0,    0,    10,   0, 0, 1, 10, 0, 0, 2, 0, 0,    0, 9, 0,  26, 0, 0};
  Bytes frame(60);
  std::ranges::copy(std::as_bytes(std::span(headers)), frame.begin());
  frame[35] = std::byte{port};
  return frame;
}

TEST_P(TapPortTest, every_queue_that_is_handed_over_keeps_what_waits_in_it) {
  open(2);
  std::unique_ptr<Inlet> second;
  const auto open_second = [&] { second = port_->open_inlet(*loop_, 1, receiver_); };
  loop_->run(open_second);
  const HostSide host(name_, 0x0800);
  loop_->run([&] { receiver_.room_ = 0; });
  for (uint8_t port = 1; port <= 32; ++port) ASSERT_TRUE(host.send(datagram(port)));
  auto handed = port_->hand_over();
  ASSERT_TRUE(handed) << handed.error().to_string();
  auto next = resume_tap(name_, *std::move(handed));
  ASSERT_TRUE(next) << next.error().to_string();
  loop_->run([&] { second.reset(); });
  close();
  port_ = *std::move(next);
  receiver_.room_ = 100;
  start();
  loop_->run(open_second);
  for (uint8_t port = 1; port <= 32; ++port)
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(datagram(port)); })) << int{port};
  loop_->run([&] { second.reset(); });
}

TEST_P(TapPortTest, a_tap_that_is_handed_over_in_an_unknown_way_is_refused) {
  open();
  const auto handed = [&](std::string words) {
    auto good = *port_->hand_over();
    good.words = std::move(words);
    return good;
  };
  EXPECT_TRUE(resume_tap(name_, handed("created no-uso")));
  EXPECT_TRUE(resume_tap("", handed("found uso")));
  for (const char* words : {"", "created", "created uso ", "other uso", "created other"})
    EXPECT_FALSE(resume_tap(name_, handed(words))) << words;
  EXPECT_FALSE(resume_tap("another", handed("found uso")));
  EXPECT_FALSE(resume_tap(name_, {.words = "found uso", .fds = {}}));
}

TEST_P(TapPortTest, a_frame_longer_than_what_was_reserved_arrives_whole) {
  receiver_.buffer_size_ = 500;
  open();
  ASSERT_EQ(std::system(fmt::format("ip link set {} mtu 9000", name_).c_str()), 0);
  const HostSide host(name_);
  for (uint8_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(host.send(broadcast(8000, i)));
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(8000, i)); })) << int{i};
  }
}

TEST_P(TapPortTest, a_frame_in_more_pieces_than_the_kernel_takes_leaves_all_the_same) {
  open();
  const HostSide host(name_);
  send(broadcast(1500), {}, 1);
  EXPECT_EQ(host.receive(), broadcast(1500));
}

TEST_P(TapPortTest, without_buffers_frames_wait_in_the_tap_until_there_are_some) {
  open();
  const HostSide host(name_);
  loop_->run([&] { receiver_.room_ = 0; });
  ASSERT_TRUE(host.send(broadcast(100)));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(receiver_.has(broadcast(100)));
  receiver_.room_ = 1000;
  loop_->run([&] { inlet_->resume(); });
  EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(100)); }));
}

TEST_P(TapPortTest, work_that_is_left_is_done_by_the_host) {
  open();
  EXPECT_NE(port_->abilities().takes & bit(VIRTIO_NET_F_CSUM), 0U);
  ASSERT_TRUE(
      port_->wish({.offloads = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4), .pairs = 1}));
  const HostSide host(name_);
  Bytes frame = broadcast(60);
  std::fill(frame.begin() + 14, frame.end(), std::byte{0});
  frame[14] = std::byte{0xff};
  // The checksum is filled in when the packet socket gets the frame, or is still marked as due: either way it
  // leaves.
  send(frame, {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16});
  EXPECT_EQ(host.receive().size(), 60U);
  // What the kernel finds wrong it refuses, and the frame is counted.
  send(frame, {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 59, .csum_offset = 40});
  EXPECT_EQ(counted("tap: dropped, the host did not take them"), 1U);
}

TEST_P(TapPortTest, a_tap_that_goes_and_comes_back_is_used_again) {
  persist(true);
  open();
  send(broadcast(100));
  EXPECT_TRUE(port_->link().up);
  std::atomic<int> changes = 0;
  port_->on_link_change([&] { ++changes; });
  remove();
  EXPECT_TRUE(TestReceiver::soon([&] { return !port_->link().up; }));
  send(broadcast(100));
  EXPECT_GE(counted("tap: dropped, the host did not take them"), 1U);
  EXPECT_EQ(::if_nametoindex(name_.c_str()), 0U) << "who deleted it makes it again";
  persist(true);
  EXPECT_TRUE(TestReceiver::soon([&] { return port_->link().up; }));
  EXPECT_TRUE(TestReceiver::soon([&] { return changes == 2; }));
  const HostSide host(name_);
  send(broadcast(77));
  EXPECT_EQ(host.receive(), broadcast(77));
  // The kernel drops what is sent before it has noticed that there is a carrier again.
  EXPECT_TRUE(TestReceiver::soon([&] { return host.send(broadcast(78)) && receiver_.has(broadcast(78)); }));
  close();
  persist(false);
}

TEST_P(TapPortTest, a_tap_that_goes_while_frames_are_sent_is_read_again_too) {
  for (const bool ours : {false, true}) {
    if (!ours) persist(true);
    open();
    remove();
    do {
      send(broadcast(100));
    } while (port_->link().up && !ours);
    for (int i = 0; i < 100; ++i) send(broadcast(100));
    if (!ours) {
      EXPECT_FALSE(port_->link().up);
      persist(true);
    }
    EXPECT_TRUE(TestReceiver::soon([&] {
      send(broadcast(100));
      return port_->link().up && ::if_nametoindex(name_.c_str()) != 0;
    }));
    const HostSide host(name_);
    const Bytes frame = broadcast(ours ? 78 : 79);
    EXPECT_TRUE(TestReceiver::soon([&] { return host.send(frame) && receiver_.has(frame); }));
    close();
    if (!ours) persist(false);
  }
}

TEST_P(TapPortTest, a_tap_that_nobody_reads_is_found_again_by_who_sends) {
  persist(true);
  open();
  loop_->run([&] { inlet_.reset(); });
  remove();
  send(broadcast(100));
  EXPECT_FALSE(port_->link().up);
  persist(true);
  EXPECT_TRUE(TestReceiver::soon([&] {
    send(broadcast(100));
    return port_->link().up;
  }));
  const HostSide host(name_);
  send(broadcast(77));
  EXPECT_EQ(host.receive(), broadcast(77));
  close();
  persist(false);
}

TEST_P(TapPortTest, a_tap_that_is_let_go_of_in_a_moment_is_waited_for) {
  persist(true);
  const auto held = hold_for_a_moment();
  open();
  EXPECT_TRUE(port_->link().up);
  close();
  persist(false);
}

TEST_P(TapPortTest, a_tap_that_goes_while_it_is_waited_for_is_made_anew) {
  const auto held = hold_for_a_moment();
  open();
  const HostSide host(name_);
  EXPECT_TRUE(host.send(broadcast(60))) << "who makes it brings it up";
}

TEST_P(TapPortTest, a_tap_of_our_own_is_made_again) {
  open();
  remove();
  EXPECT_TRUE(TestReceiver::soon([&] { return ::if_nametoindex(name_.c_str()) != 0 && port_->link().up; }));
  const HostSide host(name_);
  send(broadcast(77));
  EXPECT_EQ(host.receive(), broadcast(77));
}

TEST_P(TapPortTest, queues_are_as_many_as_the_device_has_if_the_tap_allows_it) {
  open(4);
  EXPECT_EQ(port_->abilities().pairs, 4U);
  const HostSide host(name_);
  TestReceiver second;
  std::unique_ptr<Inlet> inlet;
  ASSERT_TRUE(port_->wish({.offloads = 0, .pairs = 2}));
  loop_->run([&] { inlet = port_->open_inlet(*loop_, 1, second); });
  for (uint8_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(host.send(broadcast(100, i)));
    EXPECT_TRUE(TestReceiver::soon(
        [&] { return receiver_.has(broadcast(100, i)) || second.has(broadcast(100, i)); }));
  }
  loop_->run([&] { inlet.reset(); });
  // A queue that nobody reads gets nothing.
  for (uint8_t i = 100; i < 120; ++i) {
    ASSERT_TRUE(host.send(broadcast(100, i)));
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(100, i)); }));
  }
  close();
  persist(true);
  open(4);
  EXPECT_EQ(port_->abilities().pairs, 1U) << "somebody made it with one queue";
  close();
  persist(false);
}

TEST_P(TapPortTest, an_fd_of_a_tap_may_be_given) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  std::strncpy(request.ifr_name, name_.c_str(), IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  ASSERT_EQ(::ioctl(fd.get(), TUNSETIFF, &request), 0);
  ASSERT_EQ(std::system(fmt::format("ip link set {} up", name_).c_str()), 0);
  auto opened = open_tap({.name = {}, .fd = std::move(fd), .pairs = 2});
  ASSERT_TRUE(opened) << opened.error().to_string();
  port_ = *std::move(opened);
  start();
  EXPECT_EQ(port_->abilities().pairs, 1U);
  const HostSide host(name_);
  send(broadcast(100));
  EXPECT_EQ(host.receive(), broadcast(100));
}

TEST_P(TapPortTest, what_is_no_tap_is_refused) {
  EXPECT_FALSE(open_tap({.name = "lo", .fd = {}, .pairs = 1}));
  EXPECT_FALSE(open_tap({.name = "a-name-that-is-too-long", .fd = {}, .pairs = 1}));
  EXPECT_FALSE(open_tap({.name = {}, .fd = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)), .pairs = 1}));
}

INSTANTIATE_TEST_SUITE_P(Pollers, TapPortTest, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& uring) {
                           return uring.param ? "io_uring" : "epoll";
                         });

}  // namespace
}  // namespace ringway::port
