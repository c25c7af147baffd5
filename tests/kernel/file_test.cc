// What the kernel's files can do besides: a packet socket behind vhost-net, and what tuning.h asks.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_config.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>

#include "front_end.h"
#include "ringway/kernel/tuning.h"

namespace ringway::kernel_tests {
namespace {

using vhost::bit;

constexpr uint16_t experimental = 0x88b5;  // IEEE 802.1, for experiments
constexpr uint32_t header_bytes = 12;      // virtio_net_hdr_v1

// Everything that passes the loop-back interface.
Result<std::unique_ptr<kernel::KernelDevice>> open_loopback() {
  UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(experimental)));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(experimental);
  address.sll_ifindex = static_cast<int>(::if_nametoindex("lo"));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return os_failure("cannot bind a packet socket");
  return kernel::KernelDevice::open(TRY(kernel::VhostFile::open("/dev/vhost-net")),
                                    TRY(kernel::net_endpoint(std::move(socket))));
}

// The socket knows no headers: vhost-net takes ours away and puts empty ones before what comes.
TEST(NetFile, APacketSocketCarriesFramesWithoutHeaders) {
  FrontEnd front_end(open_loopback, bit(VIRTIO_F_VERSION_1));
  Queue receive(front_end.memory, front_end.format, 64, 32, 2048);
  Queue transmit(front_end.memory, front_end.format, 64, 1, 2048);
  for (uint16_t slot = 0; slot < 32; ++slot) receive.give(slot, {}, {{0, 2048}});
  front_end.share();
  receive.start(*front_end.session, 0, front_end.base_of_areas());
  transmit.start(*front_end.session, 1, front_end.base_of_areas());
  for (uint32_t n = 0; n < 200; ++n) {
    const uint32_t bytes = 60 + n * 7 % 1400;
    const auto slot = transmit.slot(0);
    std::ranges::fill(slot, std::byte{0});
    const auto frame = slot.subspan(header_bytes, bytes);
    for (uint32_t at = 14; at < bytes; ++at) frame[at] = static_cast<std::byte>(n * 31 + at * 7);
    frame[12] = std::byte{experimental >> 8};
    frame[13] = std::byte{experimental & 0xff};
    transmit.give(0, {{0, header_bytes + bytes}}, {});
    ASSERT_TRUE(transmit.take());
    const auto back = receive.take();
    ASSERT_TRUE(back) << n;
    EXPECT_EQ(back->written, header_bytes + bytes);
    const auto came = receive.slot(back->slot).subspan(header_bytes, bytes);
    ASSERT_TRUE(std::ranges::equal(came, frame)) << n;
    receive.give(back->slot, {}, {{0, 2048}});
  }
}

TEST(NetFile, ATimeToPollIsRemembered) {
  const auto device = must(open_loopback());
  must(kernel::set_busyloop_timeout(device->file(), 1, std::chrono::microseconds(50)));
  EXPECT_EQ(must(kernel::busyloop_timeout(device->file(), 1)).count(), 50);
  EXPECT_EQ(must(kernel::busyloop_timeout(device->file(), 0)).count(), 0);
  EXPECT_FALSE(kernel::set_busyloop_timeout(device->file(), 2, std::chrono::microseconds(50)));
}

TEST(NetFile, AFileHasOneOwner) {
  const auto device = must(open_loopback());
  const auto again = device->file().ioctl(VHOST_SET_OWNER, nullptr);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().os_error, EBUSY);
}

TEST(ScsiFile, MissedEventsAreRemembered) {
  const auto device =
      must(kernel::KernelDevice::open(must(kernel::VhostFile::open("/dev/vhost-scsi")),
                                      must(kernel::scsi_endpoint("naa.5001405000000001", 1))));
  EXPECT_FALSE(must(kernel::events_missed(device->file())));
  must(kernel::set_events_missed(device->file(), true));
  EXPECT_TRUE(must(kernel::events_missed(device->file())));
}

}  // namespace
}  // namespace ringway::kernel_tests
