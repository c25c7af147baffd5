#include "ringway/device/port/packet.h"

#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/base/unique_fd.h"
#include "ringway/device/port/interface.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

constexpr unsigned frames_per_turn = 64;  // that are read
constexpr auto retry_interval = std::chrono::milliseconds(200);
constexpr size_t addresses = 12;  // bytes, in front of a VLAN tag
constexpr size_t tag_bytes = 4;

template <class T>
Result<> set(int fd, int option, const T& value) {
  if (::setsockopt(fd, SOL_PACKET, option, &value, sizeof value) != 0)
    return os_failure("the packet socket does not take an option");
  return {};
}

// Bound to the interface of this name, which is promiscuous while the socket is open.
Result<UniqueFd> open_socket(const std::string& interface) {
  const unsigned index = ::if_nametoindex(interface.c_str());
  if (index == 0) return os_failure("there is no such interface");
  // Without a protocol nothing arrives before it is bound.
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return os_failure("cannot open a packet socket");
  TRY(set(fd.get(), PACKET_VNET_HDR, 1));
  TRY(set(fd.get(), PACKET_AUXDATA, 1));
  TRY(set(fd.get(), PACKET_IGNORE_OUTGOING, 1));  // what this machine sends on it is not for the guest
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = __builtin_bswap16(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(index);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return os_failure("cannot bind to the interface");
  packet_mreq membership{};
  membership.mr_ifindex = static_cast<int>(index);
  membership.mr_type = PACKET_MR_PROMISC;
  TRY(set(fd.get(), PACKET_ADD_MEMBERSHIP, membership));
  return fd;
}

bool is_bound_to(const UniqueFd& socket, const std::string& interface) {
  sockaddr_ll address{};
  socklen_t size = sizeof address;
  return ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
         address.sll_family == AF_PACKET &&
         static_cast<unsigned>(address.sll_ifindex) == ::if_nametoindex(interface.c_str());
}

class PacketPort final : public Port {
 public:
  PacketPort(std::string interface, UniqueFd fd) : interface_(std::move(interface)), fd_(std::move(fd)) {
    if (const auto found = Interface::find(interface_)) speed_mbps_ = found->speed_mbps;
  }

  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t pair) override;
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) override;
  [[nodiscard]] Link link() const override { return {.up = !gone_, .speed_mbps = speed_mbps_}; }
  [[nodiscard]] Result<HandedPort> hand_over() const override {
    HandedPort handed;
    handed.fds.push_back(TRY(fd_.duplicate()));
    return handed;
  }
  [[nodiscard]] std::vector<Counter> counters() const override {
    return {{"packet: frames to the interface", sent_},
            {"packet: frames from the interface", received_},
            {"packet: dropped, the interface did not take them", refused_},
            {"packet: dropped, no buffers", no_buffers_},
            {"packet: dropped, not for a driver without offloads", unfinished_}};
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  // On the inlet's loop. The socket has no interface any more; the next has.
  void lose() {
    if (gone_.exchange(true)) return;
    log::warning("interface {} is down or gone", interface_);
    link_changed();
  }
  // The new socket takes the place of the old one in its number, so that outlets need not know.
  bool find() {
    const auto interface = Interface::find(interface_);
    if (!interface || !interface->is_up) return false;
    auto fd = open_socket(interface_);
    if (!fd || ::dup3(fd->get(), fd_.get(), O_CLOEXEC) < 0) return false;
    gone_ = false;
    log::info("interface {} is up", interface_);
    link_changed();
    return true;
  }

  std::atomic<uint64_t> sent_ = 0, received_ = 0, refused_ = 0, no_buffers_ = 0, unfinished_ = 0;

 private:
  const std::string interface_;
  uint32_t speed_mbps_ = 0;
  const UniqueFd fd_;
  std::atomic<bool> gone_ = false;
  const Abilities abilities_{
      .takes = transmit_offloads & ~(bit(VIRTIO_NET_F_HOST_UFO) | bit(VIRTIO_NET_F_HOST_USO)),
      .gives = receive_offloads};
};

class PacketOutlet final : public Outlet {
 public:
  explicit PacketOutlet(PacketPort& port) : port_(port) {}
  Sent send(Frame& frame) override {
    Header header = to_header(frame.offload);
    pieces_.clear();
    pieces_.push_back({.iov_base = &header, .iov_len = legacy_header});
    if (!frame.head.empty()) {
      pieces_.push_back(
          {.iov_base = const_cast<std::byte*>(frame.head.data()), .iov_len = frame.head.size()});
    }
    if (frame.pieces.size() > IOV_MAX - pieces_.size())
      return drop();  // no driver of the field cuts so finely
    pieces_.insert(pieces_.end(), frame.pieces.begin(), frame.pieces.end());
    if (::writev(port_.fd(), pieces_.data(), static_cast<int>(pieces_.size())) <= 0) return drop();
    port_.sent_.fetch_add(1, std::memory_order_relaxed);
    return Sent::done;
  }

 private:
  Sent drop() {
    port_.refused_.fetch_add(1, std::memory_order_relaxed);
    return Sent::done;
  }
  PacketPort& port_;
  std::vector<iovec> pieces_;
};

class PacketInlet final : public Inlet, private loop::Source {
 public:
  PacketInlet(PacketPort& port, loop::Loop& loop, Receiver& receiver)
      : port_(port), loop_(loop), receiver_(receiver), buffer_(tag_bytes + max_frame) {
    loop_.add(*this);
  }
  ~PacketInlet() override {
    loop_.cancel(retry_);
    loop_.remove(*this);
  }
  void resume() override { loop_.wake(*this); }

 private:
  bool poll() override {
    unsigned count = 0;
    starved_ = false;
    while (count < frames_per_turn && port_.link().up && has_room() && read_one()) ++count;
    return count > 0;
  }
  bool park() override {
    if (starved_ || !port_.link().up) return true;  // resume() or the timer
    if (auto watched = loop_.wake_when_ready(*this, port_.fd(), POLLIN); !watched)
      log::warning("{}", watched.error().to_string());
    return true;
  }
  void unpark() override {}

  // Frames wait in the socket while there are no buffers at all; what needs more than there are is dropped.
  bool has_room() {
    starved_ = receiver_.reserve(1).empty();
    return !starved_;
  }
  bool read_one() {
    Header header;
    // Room in front for a VLAN tag, which the kernel has taken out of the frame.
    std::array<iovec, 2> places{iovec{.iov_base = &header, .iov_len = legacy_header},
                                iovec{.iov_base = buffer_.data() + tag_bytes, .iov_len = max_frame}};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> control;
    msghdr message{};
    message.msg_iov = places.data();
    message.msg_iovlen = places.size();
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t length = ::recvmsg(port_.fd(), &message, MSG_TRUNC);
    if (length < 0) return failed(errno);
    const size_t bytes =
        static_cast<size_t>(length) - std::min<size_t>(legacy_header, static_cast<size_t>(length));
    if (bytes < min_frame || bytes > max_frame) return true;
    deliver(to_offload(header), std::span(buffer_).subspan(tag_bytes, bytes), tag_of(message));
    return true;
  }
  // As a number in network byte order behind its type; 0: there was none.
  static uint32_t tag_of(msghdr& message) {
    for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
      if (one->cmsg_level != SOL_PACKET || one->cmsg_type != PACKET_AUXDATA) continue;
      tpacket_auxdata data;
      std::memcpy(&data, CMSG_DATA(one), sizeof data);
      if ((data.tp_status & TP_STATUS_VLAN_VALID) == 0) return 0;
      const uint32_t type =
          (data.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? data.tp_vlan_tpid : ETH_P_8021Q;
      return type << 16U | data.tp_vlan_tci;
    }
    return 0;
  }
  void deliver(Offload offload, std::span<std::byte> frame, uint32_t tag) {
    if (tag != 0) {
      std::memmove(buffer_.data(), frame.data(), addresses);
      const uint32_t wire = __builtin_bswap32(tag);
      std::memcpy(buffer_.data() + addresses, &wire, sizeof wire);
      if ((offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0) offload.csum_start += tag_bytes;
      if (offload.gso_type != 0) offload.hdr_len += tag_bytes;
      frame = std::span(buffer_).first(frame.size() + tag_bytes);
    }
    if (!accepted(offload, receiver_.accepts())) {
      port_.unfinished_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    const bool taken =
        receiver_.deliver({.offload = offload, .length = static_cast<uint32_t>(frame.size()), .head = frame});
    (taken ? port_.received_ : port_.no_buffers_).fetch_add(1, std::memory_order_relaxed);
  }
  bool failed(int error) {
    if (error != ENETDOWN && error != ENODEV && error != ENXIO) return false;
    // The interface may be down, or gone for good; a new socket works again in both cases.
    port_.lose();
    retry_later();
    return false;
  }
  void retry_later() {
    loop_.unwatch_fd(*this);
    retry_ = loop_.after(retry_interval, [this] {
      if (!port_.find()) return retry_later();
      loop_.wake(*this);
    });
  }

  PacketPort& port_;
  loop::Loop& loop_;
  Receiver& receiver_;
  std::vector<std::byte> buffer_;
  bool starved_ = false;
  uint64_t retry_ = 0;
};

std::unique_ptr<Outlet> PacketPort::open_outlet(loop::Loop&, uint16_t) {
  return std::make_unique<PacketOutlet>(*this);
}

std::unique_ptr<Inlet> PacketPort::open_inlet(loop::Loop& loop, uint16_t, Receiver& receiver) {
  return std::make_unique<PacketInlet>(*this, loop, receiver);
}

}  // namespace

Result<std::unique_ptr<Port>> open_packet(const std::string& interface) {
  return std::make_unique<PacketPort>(interface, TRY(open_socket(interface)));
}

Result<std::unique_ptr<Port>> resume_packet(const std::string& interface, HandedPort handed) {
  if (!handed.words.empty() || handed.fds.size() != 1)
    return refused("a packet socket is handed over in an unknown way");
  if (!is_bound_to(handed.fds.front(), interface))
    return refused("another interface than this is served now, or it is gone");
  return std::make_unique<PacketPort>(interface, std::move(handed.fds.front()));
}

}  // namespace ringway::port
