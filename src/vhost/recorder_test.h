// What the tests of protocol rooms share: a handler that records, a good request of each kind. Tests only.
#pragma once

#include <fcntl.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost::testing {

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

// Some reply of each kind, with file descriptors where there may be one.
template <class Reply>
Reply some_reply() {
  if constexpr (std::is_same_v<Reply, uint64_t>) return 0;
  if constexpr (std::is_same_v<Reply, RingState>) return {.ring = 1, .value = 77};
  if constexpr (std::is_same_v<Reply, UniqueFd>) return some_fd();
  if constexpr (std::is_same_v<Reply, CryptoSession>) return {.bytes = Bytes(16)};
  if constexpr (std::is_same_v<Reply, InflightArea>)
    return {.size = 4096, .queues = 1, .queue_size = 128, .fd = some_fd()};
  if constexpr (std::is_same_v<Reply, StateChannel>) return {.fd = some_fd()};
  if constexpr (std::is_same_v<Reply, SharedObject>) return {.fd = some_fd()};
  return Reply{};
}

// Answers everything, or refuses everything, and remembers the names of what it was asked.
template <class Request>
class Recorder : public Handler<Request> {
 public:
  Result<ReplyOf<Request>> handle(Request request) override {
    std::scoped_lock lock(mutex_);
    names_.emplace_back(info_of(request).name);
    if (hook) hook(request);
    if (failure) return std::unexpected(*failure);
    return std::visit([&]<class T>(const T& one) { return ReplyOf<Request>(reply_to(one)); }, request);
  }
  std::vector<std::string> names() {
    std::scoped_lock lock(mutex_);
    return names_;
  }
  bool saw(std::string_view name) {
    const auto all = names();
    return std::find(all.begin(), all.end(), name) != all.end();
  }

  // While another thread may be asking.
  void fail_with(const Error& error) {
    std::scoped_lock lock(mutex_);
    failure = error;
  }

  std::optional<Error> failure;  // before another thread asks, or from the hook
  std::function<void(Request&)> hook;
  uint64_t features = 0;
  uint64_t capabilities = 0;

 private:
  template <class T>
  typename T::Reply reply_to(const T& request) {
    if constexpr (std::is_same_v<T, GetFeatures>) return features;
    if constexpr (std::is_same_v<typename T::Reply, Capabilities>) return {capabilities};
    if constexpr (std::is_same_v<typename T::Reply, RingState>) return {.ring = request.ring, .value = 77};
    if constexpr (std::is_same_v<T, GetConfig>)
      return {.offset = request.offset, .bytes = Bytes(request.size)};
    return some_reply<typename T::Reply>();
  }
  std::mutex mutex_;
  std::vector<std::string> names_;
};
using RecordingDevice = Recorder<DeviceRequest>;
using RecordingFrontEnd = Recorder<FrontEndRequest>;

inline memory::RegionLayout some_layout(uint64_t n = 1) {
  return {.guest = {n << 32}, .size = 0x1000, .front_end = {n << 40}, .file_offset = 0x2000};
}

// One good request of each kind, by id.
inline DeviceRequest some_device_request(uint32_t id) {
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

inline FrontEndRequest some_front_end_request(uint32_t id) {
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

}  // namespace ringway::vhost::testing
