#include "ringway/device/port/tap_device.h"

#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "ringway/base/retry.h"
#include "ringway/device/port/virtio_net.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24
#endif

namespace ringway::port {
namespace {

constexpr short tap_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

ifreq request_for(const std::string& name, short flags) {
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  request.ifr_flags = flags;
  return request;
}

Result<UniqueFd> open_clone(const std::string& name, bool many_queues) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return os_failure("cannot open /dev/net/tun");
  ifreq request = request_for(name, static_cast<short>(tap_flags | (many_queues ? IFF_MULTI_QUEUE : 0)));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return os_failure("cannot attach to the tap");
  TRY(prepare_tap_queue(fd));
  return fd;
}

// What nobody else has made nobody else brings up.
Result<> bring_up(const std::string& name) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = request_for(name, 0);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) return os_failure("cannot ask for the tap's flags");
  request.ifr_flags |= IFF_UP;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return os_failure("cannot bring the tap up");
  return {};
}

// How long the headers of a packet socket are. Linux 6.6 has two lengths, before there was one.
Result<size_t> packet_header(const UniqueFd& fd) {
  int value = 0;
  socklen_t size = sizeof value;
  if (::getsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR_SZ, &value, &size) == 0)
    return static_cast<size_t>(value);
  if (::getsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &value, &size) != 0)
    return os_failure("this fd is neither a tap's nor a packet socket");
  return value != 0 ? legacy_header : 0;
}

// And of a tap. A machine that cannot do it does not know TUNGETVNETBE.
Result<size_t> tap_header(const UniqueFd& fd, short flags) {
  int header = 0;
  int big_endian = 0;
  if ((flags & IFF_VNET_HDR) == 0) return 0;
  if (::ioctl(fd.get(), TUNGETVNETHDRSZ, &header) != 0) return os_failure("cannot ask for the tap's headers");
  if (header < static_cast<int>(legacy_header) || header > static_cast<int>(sizeof(Header)))
    return os_failure("the tap's headers are too long", EINVAL);
  if (::ioctl(fd.get(), TUNGETVNETBE, &big_endian) == 0 && big_endian != 0)
    return os_failure("the tap's headers are big-endian", EINVAL);
  return static_cast<size_t>(header);
}

Result<> never_block(const UniqueFd& fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return os_failure("cannot use the fd");
  return {};
}

}  // namespace

Result<TapDevice> TapDevice::of_name(const std::string& name, bool many_queues) {
  if (name.empty() || name.size() >= IFNAMSIZ) return refused("an interface has a name of 1 to 15 bytes");
  Result<TapDevice> device = attach(name, many_queues);
  // One that goes with its last queue may go meanwhile: then it is made anew.
  const auto is_busy = [&] { return !device && device.error().os_error == EBUSY; };
  retry_for(last_moment, [&] {
    if (is_busy()) device = attach(name, many_queues);
    return !is_busy();
  });
  return device;
}

Result<TapDevice> TapDevice::attach(const std::string& name, bool many_queues) {
  const unsigned before = ::if_nametoindex(name.c_str());
  // Whether it has many queues was decided by whoever made it.
  for (const bool many : {many_queues, !many_queues}) {
    auto fd = open_clone(name, many);
    if (!fd && fd.error().os_error == EINVAL && before != 0 && many == many_queues) continue;
    UniqueFd first = TRY(std::move(fd));
    const bool created = before == 0 || ::if_nametoindex(name.c_str()) != before;
    TapDevice device(name, many, created);
    device.first_ = std::move(first);
    if (created) TRY(bring_up(name));
    return device;
  }
  return refused("this is no tap");
}

Result<TapDevice> TapDevice::of_fd(const UniqueFd& fd) {
  ifreq request{};
  if (::ioctl(fd.get(), TUNGETIFF, &request) != 0) return os_failure("this fd is no tap's");
  if ((request.ifr_flags & IFF_TAP) == 0) return refused("this fd is a tun's, not a tap's");
  if ((request.ifr_flags & IFF_VNET_HDR) == 0) return refused("this tap was opened without IFF_VNET_HDR");
  TRY(never_block(fd));
  TRY(prepare_tap_queue(fd));
  const bool many = (request.ifr_flags & IFF_MULTI_QUEUE) != 0;
  TapDevice device(request.ifr_name, many, false);
  device.first_ = TRY(fd.duplicate());
  return device;
}

Result<TapDevice> TapDevice::as_it_is(const UniqueFd& fd) {
  TRY(header_of(fd));
  TRY(never_block(fd));
  ifreq request{};
  const bool is_tap = ::ioctl(fd.get(), TUNGETIFF, &request) == 0;
  TapDevice device(is_tap ? request.ifr_name : "packet socket", false, false);
  device.may_open_ = false;
  device.first_ = TRY(fd.duplicate());
  return device;
}

Result<TapDevice> TapDevice::of_shared_fd(const UniqueFd& fd, bool created) {
  ifreq request{};
  if (::ioctl(fd.get(), TUNGETIFF, &request) != 0) return os_failure("this fd is no tap's");
  if ((request.ifr_flags & IFF_TAP) == 0) return refused("this fd is a tun's, not a tap's");
  if (TRY(tap_header(fd, request.ifr_flags)) != plain_header)
    return os_failure("the tap's headers do not have 12 bytes", EINVAL);
  return TapDevice(request.ifr_name, (request.ifr_flags & IFF_MULTI_QUEUE) != 0, created);
}

Result<UniqueFd> TapDevice::open_queue() const {
  if (!may_open_) return refused("whoever has opened this tap has to open it again");
  if (!created_ && ::if_nametoindex(name_.c_str()) == 0) return refused("the tap is not there");
  auto fd = TRY(open_clone(name_, many_queues_));
  if (created_) TRY(bring_up(name_));
  return fd;
}

Result<size_t> header_of(const UniqueFd& fd) {
  ifreq request{};
  if (::ioctl(fd.get(), TUNGETIFF, &request) == 0) return tap_header(fd, request.ifr_flags);
  if (errno == EBADFD) return os_failure("this fd has no interface yet");
  return packet_header(fd);
}

Result<> prepare_tap_queue(const UniqueFd& fd) {
  const int header = plain_header;
  const int little_endian = 1;
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header) != 0)
    return os_failure("the tap's headers cannot have 12 bytes");
  if (::ioctl(fd.get(), TUNSETVNETLE, &little_endian) != 0)
    return os_failure("the tap's headers have a byte order");
  return {};
}

bool tap_knows_uso(const UniqueFd& fd) {
  const bool knows = ::ioctl(fd.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6) == 0;
  ::ioctl(fd.get(), TUNSETOFFLOAD, 0);
  return knows;
}

Result<> set_tap_offloads(const UniqueFd& fd, uint64_t guest_features) {
  struct Pair {
    unsigned feature;
    unsigned flag;
  };
  static constexpr Pair pairs[] = {
      {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},   {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
      {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN}, {VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO},
      {VIRTIO_NET_F_GUEST_USO4, TUN_F_USO4},   {VIRTIO_NET_F_GUEST_USO6, TUN_F_USO6}};
  unsigned flags = 0;
  if ((guest_features & bit(VIRTIO_NET_F_GUEST_CSUM)) != 0) {
    flags = TUN_F_CSUM;
    for (const Pair& pair : pairs) {
      if ((guest_features & bit(pair.feature)) != 0) flags |= pair.flag;
    }
  }
  // The kernel wants both kinds of USO or none.
  if ((flags & (TUN_F_USO4 | TUN_F_USO6)) != (TUN_F_USO4 | TUN_F_USO6)) flags &= ~(TUN_F_USO4 | TUN_F_USO6);
  if (::ioctl(fd.get(), TUNSETOFFLOAD, flags) != 0) return os_failure("the tap does not take its offloads");
  return {};
}

Result<> attach_tap_queue(const UniqueFd& fd, bool attach) {
  ifreq request{};
  request.ifr_flags = static_cast<short>(attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  if (::ioctl(fd.get(), TUNSETQUEUE, &request) != 0 && errno != EINVAL) {  // EINVAL: it is so already
    return os_failure("cannot attach or detach a queue of the tap");
  }
  return {};
}

}  // namespace ringway::port
