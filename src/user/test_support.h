// What the tests of this room share: a raw peer that can do anything to a socket, a device that records, hex. Tests only.
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

#include "ringway/base/log.h"
#include "ringway/base/notifier.h"
#include "ringway/user/codec.h"
#include "ringway/user/connection.h"
#include "ringway/user/sockets.h"
#include "ringway/vhost/handler.h"

namespace ringway::user::testing {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

// Refusals are what these tests are about; their log lines are not.
inline const bool quiet = [] {
  log::set_level(log::Level::error);
  return true;
}();

inline size_t open_fds() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

inline UniqueFd some_fd() { return UniqueFd(::eventfd(0, EFD_CLOEXEC)); }

inline std::vector<UniqueFd> some_fds(size_t count) {
  std::vector<UniqueFd> fds;
  for (size_t i = 0; i < count; ++i) fds.push_back(some_fd());
  return fds;
}

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

inline Frame empty_frame(uint32_t request, uint32_t flags = version) { return {.header = {.request = request, .flags = flags}}; }

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
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(253 * sizeof(int))> control{};
    iovec whole{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      *rights = {.cmsg_len = CMSG_LEN(fds.size() * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
      for (size_t i = 0; i < fds.size(); ++i) {
        const int fd = fds[i].get();
        std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof fd);
      }
    }
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
      msghdr message{.msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
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

// Some reply of each kind, with file descriptors where there may be one.
template <class Reply>
Reply some_reply() {
  using namespace vhost;
  if constexpr (std::is_same_v<Reply, uint64_t>) return 0;
  if constexpr (std::is_same_v<Reply, RingState>) return {.ring = 1, .value = 77};
  if constexpr (std::is_same_v<Reply, UniqueFd>) return some_fd();
  if constexpr (std::is_same_v<Reply, CryptoSession>) return {.bytes = Bytes(16)};
  if constexpr (std::is_same_v<Reply, InflightArea>) return {.size = 4096, .queues = 1, .queue_size = 128, .fd = some_fd()};
  if constexpr (std::is_same_v<Reply, StateChannel>) return {.fd = some_fd()};
  if constexpr (std::is_same_v<Reply, SharedObject>) return {.fd = some_fd()};
  return Reply{};
}

// Answers everything, or refuses everything, and remembers the names of what it was asked.
template <class Request>
class Recorder : public vhost::Handler<Request> {
 public:
  Result<vhost::ReplyOf<Request>> handle(Request request) override {
    std::scoped_lock lock(mutex_);
    names_.emplace_back(vhost::info_of(request).name);
    if (hook) hook(request);
    if (failure) return std::unexpected(*failure);
    return std::visit([this]<class T>(const T& one) { return vhost::ReplyOf<Request>(reply_to(one)); }, request);
  }
  std::vector<std::string> names() {
    std::scoped_lock lock(mutex_);
    return names_;
  }
  bool saw(std::string_view name) {
    const auto all = names();
    return std::find(all.begin(), all.end(), name) != all.end();
  }

  std::optional<Error> failure;
  std::function<void(Request&)> hook;
  uint64_t features = 0;
  uint64_t capabilities = 0;

 private:
  template <class T>
  typename T::Reply reply_to(const T& request) {
    if constexpr (std::is_same_v<T, vhost::GetFeatures>) return features;
    if constexpr (std::is_same_v<typename T::Reply, vhost::Capabilities>) return {capabilities};
    if constexpr (std::is_same_v<typename T::Reply, vhost::RingState>) return {.ring = request.ring, .value = 77};
    if constexpr (std::is_same_v<T, vhost::GetConfig>) return {.offset = request.offset, .bytes = Bytes(request.size)};
    return some_reply<typename T::Reply>();
  }
  std::mutex mutex_;
  std::vector<std::string> names_;
};
using RecordingDevice = Recorder<vhost::DeviceRequest>;
using RecordingFrontEnd = Recorder<vhost::FrontEndRequest>;

inline memory::RegionLayout some_layout(uint64_t n = 1) {
  return {.guest = {n << 32}, .size = 0x1000, .front_end = {n << 40}, .file_offset = 0x2000};
}

// One good request of each kind, by id.
vhost::DeviceRequest some_device_request(uint32_t id);
vhost::FrontEndRequest some_front_end_request(uint32_t id);

inline vhost::DeviceRequest some_device_request(uint32_t id) {
  using namespace vhost;
  const std::vector<std::function<DeviceRequest()>> makers = {
      [] { return GetFeatures{}; },
      [] { return SetFeatures{0}; },
      [] { return SetOwner{}; },
      [] { return ResetOwner{}; },
      [] {
        SetMemTable table;
        table.regions.push_back({.layout = some_layout(1), .fd = some_fd()});
        table.regions.push_back({.layout = some_layout(2), .fd = some_fd()});
        return table;
      },
      [] { return SetLogBase{.size = 0x1000, .offset = 0x2000, .fd = some_fd()}; },
      [] { return SetLogFd{some_fd()}; },
      [] { return SetVringNum{1, 128}; },
      [] { return SetVringAddr{1, 0, 0x1000, 0x2000, 0x3000, 0}; },
      [] { return SetVringBase{1, 3}; },
      [] { return GetVringBase{1}; },
      [] { return SetVringKick{1, some_fd()}; },
      [] { return SetVringCall{1, some_fd()}; },
      [] { return SetVringErr{1, some_fd()}; },
      [] { return GetProtocolFeatures{}; },
      [] { return SetProtocolFeatures{}; },
      [] { return GetQueueNum{}; },
      [] { return SetVringEnable{1, 1}; },
      [] { return SendRarp{0x060504030201}; },
      [] { return NetSetMtu{1500}; },
      [] { return SetFrontEnd{std::make_shared<RecordingFrontEnd>()}; },
      [] { return UpdateIotlb{{.iova = {0x1000}, .size = 0x1000, .front_end = {0x2000}, .permission = 3}}; },
      [] { return SetVringEndian{1, 1}; },
      [] { return GetConfig{.offset = 4, .size = 8}; },
      [] { return SetConfig{{.offset = 4, .bytes = Bytes(8)}}; },
      [] { return CreateCryptoSession{{.bytes = Bytes(16)}}; },
      [] { return CloseCryptoSession{7}; },
      [] { return PostcopyAdvise{}; },
      [] { return PostcopyListen{}; },
      [] { return PostcopyEnd{}; },
      [] { return GetInflightFd{2, 128}; },
      [] { return SetInflightFd{{.size = 4096, .queues = 2, .queue_size = 128, .fd = some_fd()}}; },
      [] { return GpuSetSocket{some_fd()}; },
      [] { return ResetDevice{}; },
      [] { return VringKick{1}; },
      [] { return GetMaxMemSlots{}; },
      [] { return AddMemReg{{.layout = some_layout(), .fd = some_fd()}}; },
      [] { return RemMemReg{some_layout()}; },
      [] { return SetStatus{4}; },
      [] { return GetStatus{}; },
      [] { return GetSharedObject{}; },
      [] { return SetDeviceStateFd{.fd = some_fd()}; },
      [] { return CheckDeviceState{}; },
      [] { return GetShmemConfig{}; },
      [] { return GetVringBaseSkipDrain{1}; },
  };
  return makers.at(id - 1)();
}

inline vhost::FrontEndRequest some_front_end_request(uint32_t id) {
  using namespace vhost;
  const std::vector<std::function<FrontEndRequest()>> makers = {
      [] { return IotlbFault{{.iova = {0x1000}, .permission = 1, .type = IotlbType::miss}}; },
      [] { return ConfigChange{}; },
      [] { return HostNotifier{.ring = 1, .size = 4096, .fd = some_fd()}; },
      [] { return VringCall{1}; },
      [] { return VringErr{1}; },
      [] { return SharedObjectAdd{}; },
      [] { return SharedObjectRemove{}; },
      [] { return SharedObjectLookup{}; },
      [] { return ShmemMap{.range = {.shmid = 1, .length = 4096}, .fd = some_fd()}; },
      [] { return ShmemUnmap{.range = {.shmid = 1, .length = 4096}}; },
  };
  return makers.at(id - 1)();
}

inline constexpr uint64_t every_feature = ~uint64_t{0};

}  // namespace ringway::user::testing
