// What the tests of this room share: a raw peer that can do anything to a socket, frames, hex. Tests only.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/user/ancillary.h"
#include "ringway/user/codec.h"
#include "ringway/user/connection.h"
#include "ringway/user/sockets.h"
#include "ringway/vhost/recorder_test.h"

namespace ringway::user::testing {

using namespace std::chrono_literals;
using namespace vhost::testing;

// "08000000 01 00" -> bytes; blanks are ignored.
inline Bytes from_hex(std::string_view text) {
  Bytes bytes;
  std::string digits;
  for (const char c : text) {
    if (c != ' ' && c != '\n') digits += c;
    if (digits.size() < 2) continue;
    bytes.push_back(static_cast<std::byte>(std::stoi(digits, nullptr, 16)));
    digits.clear();
  }
  return bytes;
}

inline std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0 && i % 4 == 0) text += ' ';
    text += fmt::format("{:02x}", static_cast<unsigned>(bytes[i]));
  }
  return text;
}

inline Bytes bytes_of(const Frame& frame) {
  Bytes bytes(sizeof(Header) + frame.payload.size());
  std::memcpy(bytes.data(), &frame.header, sizeof(Header));
  std::copy(frame.payload.begin(), frame.payload.end(), bytes.begin() + sizeof(Header));
  return bytes;
}

inline Frame frame_of(const Bytes& bytes, std::vector<UniqueFd> fds = {}) {
  Frame frame;
  std::memcpy(&frame.header, bytes.data(), sizeof(Header));
  frame.payload.assign(bytes.begin() + sizeof(Header), bytes.end());
  frame.fds = std::move(fds);
  return frame;
}

inline Frame u64_frame(uint32_t request, uint32_t flags, uint64_t value) {
  Frame frame{.header = {.request = request, .flags = flags, .size = 8}};
  frame.payload.resize(8);
  std::memcpy(frame.payload.data(), &value, 8);
  return frame;
}

inline Frame state_frame(uint32_t request, uint32_t flags, uint32_t index, uint32_t value) {
  return u64_frame(request, flags, uint64_t{value} << 32 | index);
}

inline Frame empty_frame(uint32_t request, uint32_t flags = version) {
  return {.header = {.request = request, .flags = flags}};
}

inline uint64_t u64_of(const Frame& frame) {
  uint64_t value = 0;
  EXPECT_EQ(frame.payload.size(), sizeof value);
  std::memcpy(&value, frame.payload.data(), std::min(frame.payload.size(), sizeof value));
  return value;
}

// The other end of a socket, with no rules of its own.
class Peer {
 public:
  Peer() = default;
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {}

  void send(std::span<const std::byte> bytes, std::span<const UniqueFd> fds = {}) const {
    Ancillary ancillary;
    iovec whole{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
    ancillary.attach(message, fds);
    ASSERT_EQ(::sendmsg(fd_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void send(const Frame& frame) const { send(bytes_of(frame), frame.fds); }

  // One frame, or a failure of the test after two seconds.
  Frame receive() const {
    Frame frame;
    std::array<std::byte, sizeof(Header)> header{};
    if (!fill(header, frame)) {
      ADD_FAILURE() << "no frame came";
      return frame;
    }
    std::memcpy(&frame.header, header.data(), sizeof(Header));
    frame.payload.resize(frame.header.size);
    if (!fill(frame.payload, frame)) ADD_FAILURE() << "no payload came";
    return frame;
  }
  Frame ask(const Frame& frame) const {
    send(frame);
    return receive();
  }
  [[nodiscard]] bool readable(std::chrono::milliseconds within) const {
    pollfd entry{.fd = fd_.get(), .events = POLLIN};
    return ::poll(&entry, 1, static_cast<int>(within.count())) == 1;
  }
  [[nodiscard]] bool closed(std::chrono::milliseconds within = 2s) const {
    std::byte one{};
    return readable(within) && ::recv(fd_.get(), &one, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
  }
  void close() { fd_.reset(); }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  bool fill(std::span<std::byte> to, Frame& frame) const {
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(253 * sizeof(int))> control{};
    while (!to.empty()) {
      if (!readable(2s)) return false;
      iovec whole{.iov_base = to.data(), .iov_len = to.size()};
      msghdr message{.msg_iov = &whole,
                     .msg_iovlen = 1,
                     .msg_control = control.data(),
                     .msg_controllen = control.size()};
      const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
      if (got <= 0) return false;
      for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
        for (size_t i = 0; i < (one->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(one) + i * sizeof(int), sizeof fd);
          frame.fds.emplace_back(fd);
        }
      }
      to = to.subspan(static_cast<size_t>(got));
    }
    return true;
  }
  UniqueFd fd_;
};

struct Pair {
  Peer peer;
  std::shared_ptr<Connection> connection;
};

inline Pair make_pair(ConnectionOptions options = {}) {
  auto ends = socket_pair();
  EXPECT_TRUE(ends);
  auto connection = Connection::adopt(std::move((*ends)[1]), std::move(options));
  EXPECT_TRUE(connection);
  return {.peer = Peer(std::move((*ends)[0])), .connection = *std::move(connection)};
}

}  // namespace ringway::user::testing
