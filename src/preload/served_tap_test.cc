// The device "tap" behind the kernel's interface: a program's frames and those of its taps. For those who may
// make interfaces.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>

#include "ringway/device/port/receiver_test.h"
#include "ringway/preload/ioctl_rig_test.h"

namespace ringway::preload {
namespace {

using port::test::broadcast;
using port::test::Bytes;
using port::test::HostSide;

class ServedTap : public IoctlRig {
 protected:
  void SetUp() override {
    socket_ = make_tap("s");
    if (!socket_) GTEST_SKIP() << "no permission to make a tap";
    server_ = *kernel::IoctlServer::open({}, [this] { return make_device("tap", *workers_); });
  }
  static std::string name(const char* which) { return fmt::format("rwi{}{}", which, ::getpid()); }
  // Its headers are those of a legacy driver until somebody sets them.
  static UniqueFd make_tap(const char* which, short flags = IFF_VNET_HDR) {
    UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ifreq request{};
    std::strncpy(request.ifr_name, name(which).c_str(), IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | flags);
    if (!fd || ::ioctl(fd.get(), TUNSETIFF, &request) != 0) return {};
    EXPECT_EQ(std::system(fmt::format("ip link set {} up", name(which)).c_str()), 0);
    return fd;
  }
  static void set_headers(const UniqueFd& tap, int bytes) {
    ASSERT_EQ(::ioctl(tap.get(), TUNSETVNETHDRSZ, &bytes), 0);
  }
  static std::string text_of(const Bytes& frame) {
    return {reinterpret_cast<const char*>(frame.data()), frame.size()};
  }
  void leaves_at(const HostSide& host, uint8_t seed) {
    send(text_of(broadcast(100, seed)));
    EXPECT_EQ(host.receive(), broadcast(100, seed));
    EXPECT_TRUE(take_used(transmit));
  }
  // An interface that is up talks by itself: the frame is one of the next.
  void arrives_from(const HostSide& host, uint8_t seed) {
    ASSERT_TRUE(host.send(broadcast(120, seed)));
    for (int others = 0; others < 50; ++others) {
      add_receive_buffer();
      if (received() == text_of(broadcast(120, seed))) return;
    }
    ADD_FAILURE() << "the frame has not come";
  }
};

TEST_F(ServedTap, a_modern_driver_has_headers_of_12_bytes) {
  set_headers(socket_, 12);
  start();
  const HostSide host(name("s"));
  for (uint8_t seed = 0; seed < 10; ++seed) {
    leaves_at(host, seed);
    arrives_from(host, seed);
  }
}

TEST_F(ServedTap, a_legacy_driver_without_merged_buffers_has_headers_of_10_bytes) {
  header = port::legacy_header;
  start(0);
  const HostSide host(name("s"));
  for (uint8_t seed = 0; seed < 10; ++seed) {
    leaves_at(host, seed);
    arrives_from(host, seed);
  }
}

TEST_F(ServedTap, a_legacy_driver_with_merged_buffers_has_headers_of_12_bytes) {
  set_headers(socket_, 12);
  start(vhost::bit(VIRTIO_NET_F_MRG_RXBUF));
  const HostSide host(name("s"));
  leaves_at(host, 1);
  arrives_from(host, 2);
}

// VHOST_NET_F_VIRTIO_NET_HDR: headers are vhost's, the backend has none.
TEST_F(ServedTap, headers_end_here_where_the_backend_has_none) {
  socket_ = make_tap("n", 0);
  start(modern | vhost::bit(VHOST_NET_F_VIRTIO_NET_HDR));
  const HostSide host(name("n"));
  leaves_at(host, 1);
  arrives_from(host, 2);
}

TEST_F(ServedTap, each_ring_may_have_a_tap_of_its_own_and_get_another_while_it_runs) {
  set_headers(socket_, 12);
  start();
  const HostSide first(name("s"));
  arrives_from(first, 1);
  const UniqueFd kept = std::move(socket_);
  socket_ = make_tap("t");
  set_headers(socket_, 12);
  ASSERT_EQ(bind(transmit), 0);
  const HostSide second(name("t"));
  leaves_at(second, 2);
  arrives_from(first, 3);
  ASSERT_EQ(bind(receive), 0);
  arrives_from(second, 4);
}

TEST_F(ServedTap, an_unbound_ring_rests_and_goes_on_when_it_is_bound_again) {
  set_headers(socket_, 12);
  start();
  const HostSide host(name("s"));
  leaves_at(host, 1);
  EXPECT_EQ(unbind(transmit), 0);
  send(text_of(broadcast(100, 2)));
  EXPECT_TRUE(host.receive(30).empty());
  EXPECT_EQ(bind(transmit), 0);
  EXPECT_EQ(host.receive(), broadcast(100, 2));
}

TEST_F(ServedTap, a_tap_that_has_no_interface_yet_is_refused) {
  socket_ = UniqueFd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  set_up();
  EXPECT_EQ(bind(receive), -EBADFD);
}

}  // namespace
}  // namespace ringway::preload
