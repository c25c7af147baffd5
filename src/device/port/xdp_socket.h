// XdpSocket: an AF_XDP socket on one queue of an interface, with the memory its frames are in (a UMEM): half
// of the frames are for receiving, half for sending. The kernel's Documentation/networking/af_xdp.rst.
// Thread rule: one thread may receive while another sends; which is which is the owner's affair.
#pragma once

#include <xdp/xsk.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/base/result.h"
#include "ringway/device/port/interface.h"

namespace ringway::port {

enum class XdpMode : uint8_t {
  automatic,  // zero-copy where the driver has it
  copy,
  zero_copy,
};

class XdpSocket {
 public:
  static constexpr uint32_t frames = 2048;  // each way
  // The MTU of an interface, in bytes, whose frames one of the UMEM's can hold with two VLAN tags.
  static constexpr uint32_t max_mtu = 4096 - XDP_PACKET_HEADROOM - 14 - 2 * 4;

  // `name`: of `interface`.
  static Result<std::unique_ptr<XdpSocket>> open(const std::string& name, const Interface& interface,
                                                 uint32_t queue, XdpMode mode);
  ~XdpSocket();
  XdpSocket(const XdpSocket&) = delete;
  XdpSocket& operator=(const XdpSocket&) = delete;

  [[nodiscard]] unsigned interface() const { return interface_; }  // its index
  [[nodiscard]] int fd() const { return ::xsk_socket__fd(socket_); }
  [[nodiscard]] bool is_zero_copy() const { return zero_copy_; }
  // What the kernel has counted. Any thread.
  [[nodiscard]] xdp_statistics statistics() const;

  // Calls bool take(std::span<const std::byte>) for frames that have arrived, `most` or fewer, until it says
  // false: that frame comes again. How many it has taken.
  template <class Take>
  uint32_t receive(uint32_t most, Take&& take);
  // A driver that ran out of places to receive into is told that there are some.
  void wake_driver();

  [[nodiscard]] uint32_t longest() const { return frame_bytes_; }  // bytes of a frame that is sent
  // Where the next frame to be sent is written; empty: all are on their way.
  [[nodiscard]] std::span<std::byte> next_place();
  // What was written there is a frame of so many bytes, for the next kick().
  void send(uint32_t length);
  // The kernel looks at what is to be sent. False: it has not got to the end, and must be told again.
  bool kick();

 private:
  XdpSocket() = default;
  Result<> open_rings(const std::string& name, uint32_t queue, XdpMode mode);
  void take_back();
  [[nodiscard]] bool has_unsent() const;

  unsigned interface_ = 0;
  Mapping memory_;
  uint32_t frame_bytes_ = 0;
  xsk_umem* umem_ = nullptr;
  xsk_socket* socket_ = nullptr;
  bool zero_copy_ = false;
  // The receiver's
  xsk_ring_prod fill_{};
  xsk_ring_cons received_{};
  // The sender's
  xsk_ring_prod to_send_{};
  xsk_ring_cons sent_{};
  std::vector<uint64_t> free_;  // places in memory_
};

template <class Take>
uint32_t XdpSocket::receive(uint32_t most, Take&& take) {
  uint32_t at = 0;
  const uint32_t there = ::xsk_ring_cons__peek(&received_, most, &at);
  uint32_t taken = 0;
  for (; taken < there; ++taken) {
    const xdp_desc frame = *::xsk_ring_cons__rx_desc(&received_, at + taken);
    if (!take(std::span<const std::byte>(memory_.data() + frame.addr, frame.len))) break;
  }
  if (taken < there) ::xsk_ring_cons__cancel(&received_, there - taken);
  if (taken == 0) return 0;
  uint32_t to = 0;
  // There is room: the ring has as many entries as there are frames to receive into.
  ::xsk_ring_prod__reserve(&fill_, taken, &to);
  for (uint32_t i = 0; i < taken; ++i) {
    *::xsk_ring_prod__fill_addr(&fill_, to + i) = ::xsk_ring_cons__rx_desc(&received_, at + i)->addr;
  }
  ::xsk_ring_prod__submit(&fill_, taken);
  ::xsk_ring_cons__release(&received_, taken);
  return taken;
}

}  // namespace ringway::port
