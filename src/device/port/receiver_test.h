// For tests of ports: a receiver with buffers of the test's own, and a host interface's other side as a
// packet socket.
#pragma once

#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ringway/base/unique_fd.h"
#include "ringway/device/port/port.h"

namespace ringway::port::test {

using Bytes = std::vector<std::byte>;

// An Ethernet frame to everybody, of an experimental type, whose bytes depend on `seed`.
inline Bytes broadcast(size_t length, uint8_t seed = 1) {
  Bytes frame(length);
  for (size_t i = 0; i < length; ++i) frame[i] = static_cast<std::byte>(seed + i * 7 + i / 256);
  std::fill_n(frame.begin(), 6, std::byte{0xff});
  frame[6] = std::byte{2};
  frame[12] = std::byte{0x88};
  frame[13] = std::byte{0xb5};
  return frame;
}

// Has buffers while `room` is positive.
class TestReceiver : public Receiver {
 public:
  struct Arrived {
    Offload offload;
    Bytes bytes;
  };
  bool deliver(const Frame& frame) override {
    Arrived one{.offload = frame.offload, .bytes = Bytes(frame.head.begin(), frame.head.end())};
    for (const iovec& piece : frame.pieces) {
      const auto* from = static_cast<const std::byte*>(piece.iov_base);
      one.bytes.insert(one.bytes.end(), from, from + piece.iov_len);
    }
    return keep(std::move(one));
  }
  std::span<const iovec> reserve(uint32_t bytes) override {
    if (room_ == 0) return {};
    buffer_.assign(std::min(bytes, buffer_size_), std::byte{0xaa});
    places_ = {
        {.iov_base = buffer_.data(), .iov_len = buffer_.size() / 2},
        {.iov_base = buffer_.data() + buffer_.size() / 2, .iov_len = buffer_.size() - buffer_.size() / 2}};
    return places_;
  }
  bool commit(const Offload& offload, uint32_t length, std::span<const std::byte> rest) override {
    Arrived one{.offload = offload, .bytes = Bytes(buffer_.begin(), buffer_.begin() + length)};
    one.bytes.insert(one.bytes.end(), rest.begin(), rest.end());
    return keep(std::move(one));
  }
  [[nodiscard]] uint64_t accepts() const override { return accepts_; }

  // Of experimental types only: an interface that is up talks by itself.
  [[nodiscard]] bool has(const Bytes& frame) {
    const std::scoped_lock lock(mutex_);
    return std::ranges::any_of(arrived_, [&](const Arrived& one) { return one.bytes == frame; });
  }
  template <class Condition>
  [[nodiscard]] static bool soon(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  // Taken away on the thread of the port's loop: not between a look for room and a frame that it was for.
  std::atomic<unsigned> room_ = 1000;
  uint32_t buffer_size_ = UINT32_MAX;
  uint64_t accepts_ = 0;
  std::mutex mutex_;
  std::deque<Arrived> arrived_;

 private:
  bool keep(Arrived one) {
    if (room_ == 0) return false;
    --room_;
    const std::scoped_lock lock(mutex_);
    arrived_.push_back(std::move(one));
    return true;
  }
  Bytes buffer_;
  std::vector<iovec> places_;
};

// Waits until an interface has a carrier, some time after it and its peer were set up: what is sent before is
// lost.
inline bool is_running(const std::string& interface) {
  return TestReceiver::soon([&] {
    std::string state;
    std::ifstream("/sys/class/net/" + interface + "/operstate") >> state;
    return state == "up";
  });
}

// What is sent here arrives at the other end of the interface, and the other way round.
class HostSide {
 public:
  explicit HostSide(const std::string& name, uint16_t type = 0x88b5)
      : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = __builtin_bswap16(type);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0)
        << std::strerror(errno);
  }
  bool send(const Bytes& frame) const {
    return ::send(fd_.get(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
  }
  // Empty: nothing came in time.
  [[nodiscard]] Bytes receive(int milliseconds = 3000) const {
    pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, milliseconds) != 1) return {};
    Bytes frame(70000);
    const ssize_t length = ::recv(fd_.get(), frame.data(), frame.size(), 0);
    frame.resize(static_cast<size_t>(std::max<ssize_t>(length, 0)));
    return frame;
  }

 private:
  UniqueFd fd_;
};

}  // namespace ringway::port::test
