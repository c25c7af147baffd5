#include "ringway/device/port/interface.h"

#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ringway/base/log.h"

namespace ringway::port {
namespace {

constexpr unsigned messages_per_turn = 64;
constexpr unsigned turns_between_looks = 1024;

// Of a driver that does not say: 1.
uint32_t queues_of(const UniqueFd& fd, ifreq request) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (::ioctl(fd.get(), SIOCETHTOOL, &request) != 0) return 1;
  return std::max(1U, channels.combined_count + std::max(channels.rx_count, channels.tx_count));
}

uint32_t speed_of(const UniqueFd& fd, ifreq request) {
  ethtool_cmd link{};
  link.cmd = ETHTOOL_GSET;
  request.ifr_data = reinterpret_cast<char*>(&link);
  if (::ioctl(fd.get(), SIOCETHTOOL, &request) != 0) return 0;
  const uint32_t speed = ethtool_cmd_speed(&link);
  return speed == static_cast<uint32_t>(SPEED_UNKNOWN) ? 0 : speed;
}

}  // namespace

Result<Interface> Interface::find(const std::string& name) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name) return refused("there is no such interface");
  std::memcpy(request.ifr_name, name.data(), name.size());
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return os_failure("cannot ask for interfaces");
  if (::ioctl(fd.get(), SIOCGIFINDEX, &request) != 0) return os_failure("there is no such interface");
  Interface found{.index = static_cast<unsigned>(request.ifr_ifindex),
                  .queues = queues_of(fd, request),
                  .speed_mbps = speed_of(fd, request)};
  if (::ioctl(fd.get(), SIOCGIFMTU, &request) != 0) return os_failure("the interface tells no MTU");
  found.mtu = static_cast<uint32_t>(request.ifr_mtu);
  if (::ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return os_failure("the interface tells no state");
  found.is_up = (request.ifr_flags & IFF_UP) != 0 && (request.ifr_flags & IFF_RUNNING) != 0;
  return found;
}

Result<UniqueFd> make_promiscuous(unsigned index) {
  // Without a protocol it receives nothing itself.
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd) return os_failure("cannot open a packet socket, which needs CAP_NET_RAW");
  packet_mreq membership{};
  membership.mr_ifindex = static_cast<int>(index);
  membership.mr_type = PACKET_MR_PROMISC;
  if (::setsockopt(fd.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership) != 0)
    return os_failure("the interface does not become promiscuous");
  return fd;
}

Result<UniqueFd> LinkWatch::open() {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return os_failure("cannot watch interfaces");
  return fd;
}

LinkWatch::LinkWatch(loop::Loop& loop, int fd, std::function<void()> changed)
    : loop_(loop), fd_(fd), changed_(std::move(changed)) {
  loop_.add(*this);
}

// What the messages say is asked for afresh; that there are some is enough, as it is that some were lost.
bool LinkWatch::poll() {
  if (!std::exchange(told_, false) && ++turns_ % turns_between_looks != 0) return false;
  std::array<char, 8192> message;
  bool any = false;
  for (unsigned i = 0; i < messages_per_turn; ++i) {
    if (::recv(fd_, message.data(), message.size(), 0) < 0 && errno != ENOBUFS) break;
    any = true;
  }
  if (any) changed_();
  return any;
}

bool LinkWatch::park() {
  if (auto watched = loop_.wake_when_ready(*this, fd_, POLLIN); !watched)
    log::warning("{}", watched.error().to_string());
  return true;
}

}  // namespace ringway::port
