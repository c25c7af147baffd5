// Files that VHOST_NET_SET_BACKEND takes, for those who may make interfaces.
#include "ringway/preload/backend_port.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>

#include <optional>

#include "ringway/device/port/receiver_test.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::preload {
namespace {

using port::test::broadcast;
using port::test::Bytes;
using port::test::HostSide;
using port::test::is_running;
using port::test::TestReceiver;

constexpr short tap_with_headers = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

// A tap that ends with its fd; none: we may not make it.
UniqueFd make_tap(const std::string& name, short flags = tap_with_headers) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  request.ifr_flags = flags;
  if (!fd || ::ioctl(fd.get(), TUNSETIFF, &request) != 0) return {};
  if (std::system(fmt::format("ip link set {} up", name).c_str()) != 0) return {};
  return fd;
}

int shell(const std::string& command) { return std::system((command + " 2>/dev/null").c_str()); }

class BackendPortTest : public testing::Test {
 protected:
  static constexpr uint32_t receive = BackendPort::receive;
  static constexpr uint32_t transmit = BackendPort::transmit;

  void SetUp() override {
    if (!make_tap(name("p"))) GTEST_SKIP() << "no permission to make a tap";
  }
  void TearDown() override { close(); }
  static std::string name(const char* which) { return fmt::format("rwk{}{}", which, ::getpid()); }

  Result<> bind(uint32_t ring, const UniqueFd& fd) {
    return port_.bind(ring, fd ? *fd.duplicate() : UniqueFd());
  }
  void bind_both(const UniqueFd& fd) {
    for (const uint32_t ring : {receive, transmit}) {
      const auto bound = bind(ring, fd);
      ASSERT_TRUE(bound) << bound.error().to_string();
    }
  }
  void open() {
    loop_->run([&] {
      outlet_ = port_.open_outlet(*loop_, 0);
      inlet_ = port_.open_inlet(*loop_, 0, receiver_);
    });
  }
  void close() {
    loop_->run([&] {
      inlet_.reset();
      outlet_.reset();
    });
  }
  void send(const Bytes& frame) {
    const iovec piece{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    port::Frame one{.offload = {}, .length = static_cast<uint32_t>(frame.size()), .pieces = {&piece, 1}};
    loop_->run([&] { EXPECT_EQ(outlet_->send(one), port::Outlet::Sent::done); });
  }
  // The interface sees what we send.
  void leaves_at(const HostSide& host, uint8_t seed) {
    send(broadcast(200, seed));
    EXPECT_EQ(host.receive(), broadcast(200, seed));
  }
  void arrives_from(const HostSide& host, uint8_t seed) {
    ASSERT_TRUE(host.send(broadcast(300, seed)));
    EXPECT_TRUE(TestReceiver::soon([&] { return receiver_.has(broadcast(300, seed)); }));
  }

  std::unique_ptr<loop::Loop> loop_ = *loop::Loop::start({.use_io_uring = true});
  TestReceiver receiver_;
  BackendPort port_;
  std::unique_ptr<port::Outlet> outlet_;
  std::unique_ptr<port::Inlet> inlet_;
};

TEST_F(BackendPortTest, frames_pass_whatever_length_the_headers_of_a_tap_have) {
  uint8_t seed = 0;
  for (const int header : {10, 12, 16, 20}) {
    const UniqueFd tap = make_tap(name("a"));
    ASSERT_EQ(::ioctl(tap.get(), TUNSETVNETHDRSZ, &header), 0);
    bind_both(tap);
    open();
    const HostSide host(name("a"));
    leaves_at(host, ++seed);
    arrives_from(host, ++seed);
    close();
    bind_both({});
  }
}

TEST_F(BackendPortTest, a_tap_without_headers_carries_frames) {
  const UniqueFd tap = make_tap(name("a"), IFF_TAP | IFF_NO_PI);
  bind_both(tap);
  open();
  const HostSide host(name("a"));
  leaves_at(host, 1);
  arrives_from(host, 2);
}

TEST_F(BackendPortTest, headers_may_change_while_no_queue_is_open) {
  const UniqueFd tap = make_tap(name("a"));
  const HostSide host(name("a"));
  bind_both(tap);
  for (const int header : {12, 10}) {
    ASSERT_EQ(::ioctl(tap.get(), TUNSETVNETHDRSZ, &header), 0);
    open();
    leaves_at(host, static_cast<uint8_t>(header));
    arrives_from(host, static_cast<uint8_t>(header + 1));
    close();
  }
}

TEST_F(BackendPortTest, each_ring_has_its_own) {
  const UniqueFd first = make_tap(name("a"));
  const UniqueFd second = make_tap(name("b"));
  ASSERT_TRUE(bind(receive, first));
  ASSERT_TRUE(bind(transmit, second));
  open();
  leaves_at(HostSide(name("b")), 1);
  arrives_from(HostSide(name("a")), 2);
  const HostSide elsewhere(name("b"));
  ASSERT_TRUE(elsewhere.send(broadcast(100, 3)));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(receiver_.has(broadcast(100, 3)));
}

TEST_F(BackendPortTest, a_packet_socket_carries_frames_with_and_without_headers) {
  const std::string ours = name("v");
  const std::string theirs = name("w");
  if (shell(fmt::format("ip link add {0} type veth peer name {1} && ip link set {0} up && ip link set {1} up",
                        ours, theirs)) != 0) {
    GTEST_SKIP() << "no permission to make a pair of interfaces";
  }
  ASSERT_TRUE(is_running(ours) && is_running(theirs));
  for (const int headers : {0, 1}) {
    const UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::setsockopt(socket.get(), SOL_PACKET, PACKET_VNET_HDR, &headers, sizeof headers), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = __builtin_bswap16(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(ours.c_str()));
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    bind_both(socket);
    open();
    const HostSide host(theirs);
    leaves_at(host, static_cast<uint8_t>(2 * headers));
    arrives_from(host, static_cast<uint8_t>(2 * headers + 1));
    close();
  }
  EXPECT_EQ(shell("ip link delete " + ours), 0);
}

TEST_F(BackendPortTest, a_macvtap_carries_frames) {
  const std::string below = name("d");
  const std::string ours = name("m");
  if (shell(fmt::format(
          "ip link add {0} type veth peer name {0}x && ip link set {0} up && ip link set {0}x up && "
          "ip link add link {0} name {1} type macvtap mode passthru && ip link set {1} up",
          below, ours)) != 0) {
    shell("ip link delete " + below);
    GTEST_SKIP() << "this machine has no macvtap, or does not let us make one";
  }
  const UniqueFd fd(
      ::open(fmt::format("/dev/tap{}", ::if_nametoindex(ours.c_str())).c_str(), O_RDWR | O_CLOEXEC));
  if (fd) {
    bind_both(fd);
    open();
    ASSERT_TRUE(is_running(below) && is_running(below + "x"));
    const HostSide host(below + "x");
    leaves_at(host, 1);
    arrives_from(host, 2);
    close();
  }
  EXPECT_EQ(shell("ip link delete " + below), 0);
  if (!fd) GTEST_SKIP() << "there is no file for the macvtap";
}

TEST_F(BackendPortTest, without_a_backend_frames_end_and_none_come) {
  open();
  send(broadcast(100));
  close();
  const UniqueFd tap = make_tap(name("a"));
  bind_both(tap);
  bind_both({});
  open();
  send(broadcast(100));
  const HostSide host(name("a"));
  EXPECT_TRUE(host.receive(30).empty());
}

TEST_F(BackendPortTest, what_carries_no_frames_is_refused) {
  const UniqueFd without_interface(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  const auto bound = bind(receive, without_interface);
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().os_error, EBADFD);
  EXPECT_FALSE(bind(receive, UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))));
  open();  // and the ring has none
  send(broadcast(100));
}

}  // namespace
}  // namespace ringway::preload
