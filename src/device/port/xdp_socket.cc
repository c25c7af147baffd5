#include "ringway/device/port/xdp_socket.h"

#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <numeric>
#include <utility>

namespace ringway::port {
namespace {

constexpr uint32_t small_frame = 2048;  // bytes, of a UMEM: the smallest
constexpr uint32_t large_frame = 4096;  // and the largest
constexpr uint32_t link_header = 14 + 2 * 4;
// The kernel sends 32 frames each time where it copies them.
constexpr unsigned calls_per_kick = 16;

Error explained(int error) {
  switch (error) {
    case EAFNOSUPPORT:
      return refused("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)").error();
    case EPERM:
      return os_failure("an AF_XDP socket needs CAP_NET_RAW", error).error();
    case ENOBUFS:
      return os_failure("the limit of locked memory (RLIMIT_MEMLOCK) is too low for an AF_XDP socket", error)
          .error();
    case EBUSY:
      return os_failure("the queue of the interface has an AF_XDP socket already", error).error();
    case EOPNOTSUPP:
      return os_failure("the driver of the interface has no zero-copy", error).error();
    default:
      return os_failure("cannot open an AF_XDP socket on the interface", error).error();
  }
}

uint16_t bind_flags(XdpMode mode) {
  switch (mode) {
    case XdpMode::copy:
      return XDP_USE_NEED_WAKEUP | XDP_COPY;
    case XdpMode::zero_copy:
      return XDP_USE_NEED_WAKEUP | XDP_ZEROCOPY;
    case XdpMode::automatic:
      break;
  }
  return XDP_USE_NEED_WAKEUP;
}

}  // namespace

Result<std::unique_ptr<XdpSocket>> XdpSocket::open(const std::string& name, const Interface& interface,
                                                   uint32_t queue, XdpMode mode) {
  const uint32_t mtu = interface.mtu;
  if (mtu > max_mtu) return refused("the MTU of the interface is more than a frame of AF_XDP holds", mtu);
  std::unique_ptr<XdpSocket> socket(new XdpSocket);
  socket->interface_ = interface.index;
  socket->frame_bytes_ = mtu + link_header + XDP_PACKET_HEADROOM <= small_frame ? small_frame : large_frame;
  socket->memory_ = TRY(Mapping::anonymous(size_t{2} * frames * socket->frame_bytes_));
  TRY(socket->open_rings(name, queue, mode));
  return socket;
}

Result<> XdpSocket::open_rings(const std::string& name, uint32_t queue, XdpMode mode) {
  const xsk_umem_config memory{
      .fill_size = frames, .comp_size = frames, .frame_size = frame_bytes_, .frame_headroom = 0, .flags = 0};
  if (const int error = ::xsk_umem__create(&umem_, memory_.data(), memory_.size(), &fill_, &sent_, &memory);
      error != 0)
    return std::unexpected(explained(-error));
  xsk_socket_config config{};
  config.rx_size = frames;
  config.tx_size = frames;
  config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;  // XdpProgram
  config.bind_flags = bind_flags(mode);
  if (const int error =
          ::xsk_socket__create(&socket_, name.c_str(), queue, umem_, &received_, &to_send_, &config);
      error != 0)
    return std::unexpected(explained(-error));
  uint32_t to = 0;
  ::xsk_ring_prod__reserve(&fill_, frames, &to);
  free_.resize(frames);
  for (uint32_t i = 0; i < frames; ++i) {
    *::xsk_ring_prod__fill_addr(&fill_, to + i) = uint64_t{i} * frame_bytes_;
    free_[i] = uint64_t{frames + i} * frame_bytes_;
  }
  ::xsk_ring_prod__submit(&fill_, frames);
  xdp_options options{};
  socklen_t length = sizeof options;
  zero_copy_ = ::getsockopt(fd(), SOL_XDP, XDP_OPTIONS, &options, &length) == 0 &&
               (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
  return {};
}

XdpSocket::~XdpSocket() {
  if (socket_ != nullptr) ::xsk_socket__delete(socket_);
  if (umem_ != nullptr) ::xsk_umem__delete(umem_);
}

xdp_statistics XdpSocket::statistics() const {
  xdp_statistics counted{};
  socklen_t length = sizeof counted;
  if (::getsockopt(fd(), SOL_XDP, XDP_STATISTICS, &counted, &length) != 0) return {};
  return counted;
}

void XdpSocket::wake_driver() {
  if (::xsk_ring_prod__needs_wakeup(&fill_) != 0)
    (void)!::recvfrom(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
}

std::span<std::byte> XdpSocket::next_place() {
  if (free_.empty()) take_back();
  if (free_.empty()) return {};
  return {memory_.data() + free_.back(), frame_bytes_};
}

void XdpSocket::take_back() {
  uint32_t at = 0;
  const uint32_t there = ::xsk_ring_cons__peek(&sent_, frames, &at);
  for (uint32_t i = 0; i < there; ++i) free_.push_back(*::xsk_ring_cons__comp_addr(&sent_, at + i));
  ::xsk_ring_cons__release(&sent_, there);
}

void XdpSocket::send(uint32_t length) {
  assert(!free_.empty() && length <= frame_bytes_);
  uint32_t to = 0;
  ::xsk_ring_prod__reserve(&to_send_, 1, &to);  // there is room: as many entries as frames to send
  *::xsk_ring_prod__tx_desc(&to_send_, to) = {.addr = free_.back(), .len = length, .options = 0};
  free_.pop_back();
  ::xsk_ring_prod__submit(&to_send_, 1);
}

bool XdpSocket::has_unsent() const {
  return __atomic_load_n(to_send_.consumer, __ATOMIC_ACQUIRE) != *to_send_.producer;
}

bool XdpSocket::kick() {
  for (unsigned i = 0; i < calls_per_kick && has_unsent(); ++i) {
    if (::xsk_ring_prod__needs_wakeup(&to_send_) == 0) return true;
    const bool called = ::sendto(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) >= 0;
    if (called && zero_copy_) return true;                      // the driver goes on by itself
    if (called || errno == EAGAIN || errno == EBUSY) continue;  // 32 are sent, or one was refused
    if (errno == ENOBUFS) return false;
    return true;  // the interface is down or gone: no call helps now
  }
  return zero_copy_ || !has_unsent();
}

}  // namespace ringway::port
