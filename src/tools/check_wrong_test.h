// Back-ends that break one rule each, on purpose: the check of that rule must find them. What both tables of
// them are made of, at the request seam and on the wire.
#pragma once

#include <linux/virtio_config.h>

#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/tools/check_rig_test.h"

namespace ringway::tools {

using check::Verdict;
using namespace vhost;
using Reply = Result<DeviceReply>;

// A device that answers some requests wrongly. What it needs to remember is here.
class Wrong final : public Device {
 public:
  using Answer = std::function<Reply(Wrong&, DeviceRequest)>;
  Wrong(Device& next, Answer answer) : next_(next), answer_(std::move(answer)) {}
  // A thread that is about to end may come in once more, and must not start another.
  ~Wrong() override {
    std::vector<std::jthread> ending;
    const std::scoped_lock lock(mutex_);
    ends_ = true;
    ending.swap(threads_);
  }
  Reply handle(DeviceRequest request) override {
    const std::scoped_lock lock(mutex_);
    return ends_ ? right(std::move(request)) : answer_(*this, std::move(request));
  }
  Reply right(DeviceRequest request) { return next_.handle(std::move(request)); }

  // Does something a while later, and again: whoever looks may come late.
  void later(std::function<void()> what) {
    threads_.emplace_back([what = std::move(what)] {
      for (int i = 0; i < 10; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        what();
      }
    });
  }
  std::vector<std::jthread>& threads() { return threads_; }

  uint64_t number = 0;
  UniqueFd fd;
  Mapping mapping;
  std::shared_ptr<FrontEnd> front_end;
  ConfigBytes config;

 private:
  std::recursive_mutex mutex_;
  Device& next_;
  const Answer answer_;
  bool ends_ = false;
  std::vector<std::jthread> threads_;
};

template <class T>
T* as(DeviceRequest& request) {
  return std::get_if<T>(&request);
}

// Offers a protocol feature that the device does not have, and keeps it from the device.
inline Reply offering(Wrong& self, DeviceRequest request, uint64_t extra, uint64_t features = 0) {
  if (as<GetFeatures>(request)) return std::get<uint64_t>(*self.right(GetFeatures{})) | features;
  if (auto* set = as<SetFeatures>(request)) set->features &= ~features;
  if (as<GetProtocolFeatures>(request))
    return Capabilities{std::get<Capabilities>(*self.right(GetProtocolFeatures{})).bits | extra};
  if (auto* set = as<SetProtocolFeatures>(request)) set->capabilities.bits &= ~extra;
  return self.right(std::move(request));
}

struct Case {
  const char* name;
  std::set<unsigned> numbers;  // all of these fail
  Wrong::Answer answer;
};

inline constexpr uint64_t log_features = bit(VHOST_F_LOG_ALL);
inline constexpr uint64_t log_capability = bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD);

// check_wrong_requests_test.cc
const std::vector<Case>& cases();

using user::Direction;
using user::Frame;
using Frames = std::vector<Frame>;

template <class T>
constexpr uint32_t number_of = user::id_of<DeviceRequest, T>;

struct WireCase {
  const char* name;
  std::set<unsigned> numbers;
  std::function<Frames(Direction, Frame)> change;
  Wrong::Answer answer;
};

// check_wrong_messages_test.cc
const std::vector<WireCase>& wire_cases();

inline bool is_reply_to(Direction direction, const Frame& frame, uint32_t request) {
  return direction == Direction::sent && frame.header.request == request;
}

inline uint64_t u64_in(const Frame& frame) {
  uint64_t value = 0;
  std::memcpy(&value, frame.payload.data(), std::min(sizeof value, frame.payload.size()));
  return value;
}

inline void set_u64(Frame& frame, uint64_t value) { std::memcpy(frame.payload.data(), &value, sizeof value); }

inline Frame copy_of(const Frame& frame) {
  return {.header = frame.header, .payload = frame.payload, .fds = {}, .fd_fault = nullptr};
}

// Changes the reply to one request.
template <class T, class Change>
auto in_reply_to(Change change) {
  return [change](Direction direction, Frame frame) {
    if (is_reply_to(direction, frame, number_of<T>)) change(frame);
    return check::just(std::move(frame));
  };
}

template <class T>
auto without_reply_to() {
  return [](Direction direction, Frame frame) {
    if (is_reply_to(direction, frame, number_of<T>)) return Frames{};
    return check::just(std::move(frame));
  };
}

// A reply of every kind, with what a device has that moves its state and has shared memory.
Reply device_of_everything(Wrong& self, DeviceRequest request);
inline Decorate decorator_of(const Wrong::Answer& answer) {
  if (!answer) return {};
  return [answer](Device& next) { return std::make_unique<Wrong>(next, answer); };
}

}  // namespace ringway::tools
