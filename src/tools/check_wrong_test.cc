// Back-ends that break one rule each, on purpose: the check of that rule must find them.
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "ringway/base/mapping.h"
#include "ringway/base/notifier.h"
#include "ringway/tools/check_rig_test.h"

namespace ringway::tools {
namespace {

using check::Verdict;
using namespace vhost;
using Reply = Result<DeviceReply>;

// ---- at the request seam

// A device that answers some requests wrongly. What it needs to remember is here.
class Wrong final : public Device {
 public:
  using Answer = std::function<Reply(Wrong&, DeviceRequest)>;
  Wrong(Device& next, Answer answer) : next_(next), answer_(std::move(answer)) {}
  Reply handle(DeviceRequest request) override {
    const std::scoped_lock lock(mutex_);
    return answer_(*this, std::move(request));
  }
  Reply right(DeviceRequest request) { return next_.handle(std::move(request)); }

  // Does something a while later.
  void later(std::function<void()> what) {
    threads_.emplace_back([what = std::move(what)] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      what();
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
  std::vector<std::jthread> threads_;  // end before the rest
};

template <class T>
T* as(DeviceRequest& request) {
  return std::get_if<T>(&request);
}

// Offers a protocol feature that the device does not have, and keeps it from the device.
Reply offering(Wrong& self, DeviceRequest request, uint64_t extra, uint64_t features = 0) {
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

constexpr uint64_t log_features = bit(VHOST_F_LOG_ALL);
constexpr uint64_t log_capability = bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD);

// Takes a log and marks nothing.
Reply log_without_marks(Wrong& self, DeviceRequest request) {
  if (auto* base = as<SetLogBase>(request)) {
    self.mapping = Mapping::of_file(base->fd.get(), base->size, static_cast<off_t>(base->offset)).value();
    return Done{};
  }
  if (as<SetLogFd>(request)) return Done{};
  if (auto* address = as<SetVringAddr>(request)) address->flags = 0;
  return offering(self, std::move(request), log_capability, log_features);
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"base_too_high",
       {6, 36, 95, 96},
       [](Wrong& self, DeviceRequest request) -> Reply {
         const bool stops = as<GetVringBase>(request) != nullptr;
         Reply reply = self.right(std::move(request));
         if (stops && reply) ++std::get<RingState>(*reply).value;
         return reply;
       }},
      {"packed_wrap_lost",
       {7},
       [](Wrong& self, DeviceRequest request) -> Reply {
         const bool stops = as<GetVringBase>(request) != nullptr;
         Reply reply = self.right(std::move(request));
         if (stops && reply) std::get<RingState>(*reply).value ^= 0x8000;
         return reply;
       }},
      {"addresses_ignored",
       {8, 9, 32},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringAddr>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"guest_addresses_refused",
       {10},
       [](Wrong& self, DeviceRequest request) -> Reply {
         const auto* table = as<SetMemTable>(request);
         if (table && table->regions[0].layout.front_end.value == table->regions[0].layout.guest.value)
           return refused("no");
         return offering(self, std::move(request), bit(VHOST_USER_PROTOCOL_F_GPA_ADDRESSES));
       }},
      {"seven_regions",
       {14},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* table = as<SetMemTable>(request); table && table->regions.size() > 7)
           return refused("too many");
         return self.right(std::move(request));
       }},
      {"iotlb_refused",
       {16, 71, 105},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<UpdateIotlb>(request)) return refused("no");
         return self.right(std::move(request));
       }},
      {"runs_when_enabled",
       {29},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* enable = as<SetVringEnable>(request)) {
           if (!self.right(SetVringKick{enable->ring, {}})) return refused("cannot start");
         }
         return self.right(std::move(request));
       }},
      {"enable_ignored",
       {30, 32, 34, 39},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringEnable>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"enable_forgotten_until_started",
       {30},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringKick>(request)) self.number = 1;
         if (as<SetVringEnable>(request) && self.number == 0) return Done{};
         return self.right(std::move(request));
       }},
      {"kick_message_ignored",
       {34, 38},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringKick>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"starts_at_a_kick",
       {38},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* kick = as<SetVringKick>(request); kick && kick->fd) {
           auto shared = std::make_shared<SetVringKick>(std::move(*kick));
           self.threads().emplace_back([&self, shared](const std::stop_token& stop) {
             pollfd entry{.fd = shared->fd.get(), .events = POLLIN, .revents = 0};
             while (!stop.stop_requested() && ::poll(&entry, 1, 5) == 0) {
             }
             if (!stop.stop_requested())
               (void)self.handle(SetVringKick{shared->ring, std::move(*shared->fd.duplicate())});
           });
           if (self.number++ == 0) return Done{};
           self.threads().back().request_stop();
         }
         return self.right(std::move(request));
       }},
      {"does_not_stop",
       {35, 29},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* stop = as<GetVringBase>(request)) return RingState{stop->ring, 1};
         return self.right(std::move(request));
       }},
      {"starts_again_elsewhere",
       {36, 95},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* base = as<SetVringBase>(request); base && base->base != 0) base->base = 0;
         return self.right(std::move(request));
       }},
      {"disabled_for_ever",
       {39},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* enable = as<SetVringEnable>(request)) {
           if (enable->enable == 0) self.number = 1;
           if (self.number == 1) enable->enable = 0;
         }
         return self.right(std::move(request));
       }},
      {"disabled_without_bit_30",
       {40},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* set = as<SetFeatures>(request)) set->features |= bit(VHOST_USER_F_PROTOCOL_FEATURES);
         return self.right(std::move(request));
       }},
      {"call_cannot_change",
       {41},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringCall>(request) && self.number++ > 0) return Done{};
         return self.right(std::move(request));
       }},
      {"writes_while_suspended",
       {42, 58},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* table = as<SetMemTable>(request))
           self.mapping = Mapping::of_file(table->regions[0].fd.get(), 4096, 0).value();
         const bool stops = as<GetVringBase>(request) != nullptr;
         if (stops) self.later([&self] { self.mapping.data()[100] ^= std::byte{1}; });
         return self.right(std::move(request));
       }},
      {"calls_while_suspended",
       {43},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* set = as<SetVringCall>(request); set && set->fd) self.fd = *set->fd.duplicate();
         if (as<GetVringBase>(request))
           self.later([&self] { Notifier::adopt(*self.fd.duplicate()).value().signal(); });
         return self.right(std::move(request));
       }},
      {"sends_while_suspended",
       {44},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* set = as<SetFrontEnd>(request)) self.front_end = set->front_end;
         if (as<GetVringBase>(request) && self.front_end)
           self.later([&self] { (void)call(*self.front_end, ConfigChange{}); });
         return self.right(std::move(request));
       }},
      {"silent_while_suspended",
       {45},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<GetVringBase>(request)) self.number = 1;
         if (as<GetConfig>(request) && self.number == 1) return refused("suspended");
         return self.right(std::move(request));
       }},
      {"no_multiple_queues",
       {48},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<GetProtocolFeatures>(request))
           return Capabilities{std::get<Capabilities>(*self.right(std::move(request))).bits &
                               ~bit(VHOST_USER_PROTOCOL_F_MQ)};
         return self.right(std::move(request));
       }},
      {"no_queues",
       {48},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<GetQueueNum>(request)) return uint64_t{0};
         return self.right(std::move(request));
       }},
      {"marks_nothing", {50, 51, 52, 54}, log_without_marks},
      {"marks_all_the_time",
       {50},
       [](Wrong& self, DeviceRequest request) -> Reply {
         const bool maps = as<SetLogBase>(request) != nullptr;
         Reply reply = log_without_marks(self, std::move(request));
         if (maps) std::memset(self.mapping.data(), 0xff, self.mapping.size());
         return reply;
       }},
      {"marks_at_twice_the_offset",
       {54},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* base = as<SetLogBase>(request)) base->offset = 0;
         const bool sets = as<SetVringEnable>(request) != nullptr;
         Reply reply = log_without_marks(self, std::move(request));
         if (sets || self.mapping.data() == nullptr) return reply;
         std::memset(self.mapping.data(), 0xff, 16);
         return reply;
       }},
      {"marks_overwrite",
       {55},
       [](Wrong& self, DeviceRequest request) -> Reply {
         const bool maps = as<SetLogBase>(request) != nullptr;
         Reply reply = log_without_marks(self, std::move(request));
         if (maps) {
           self.threads().emplace_back([&self](const std::stop_token& stop) {
             while (!stop.stop_requested()) {
               std::memset(self.mapping.data(), 0, self.mapping.size());
               std::this_thread::sleep_for(std::chrono::microseconds(50));
             }
           });
         }
         return reply;
       }},
      {"log_fd_refused",
       {57},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetLogFd>(request)) return refused("no");
         return log_without_marks(self, std::move(request));
       }},
      {"iotlb_ignored",
       {69},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<UpdateIotlb>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"misses_kept",
       {72, 73},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetFrontEnd>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"back_channel_refused",
       {75, 104},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetFrontEnd>(request)) return refused("no");
         return self.right(std::move(request));
       }},
      {"inflight_area_too_small",
       {77},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* get = as<GetInflightFd>(request)) {
           UniqueFd file(::memfd_create("inflight", MFD_CLOEXEC));
           EXPECT_EQ(::ftruncate(file.get(), 64), 0);
           return InflightArea{.size = 4096,
                               .offset = 0,
                               .queues = get->queues,
                               .queue_size = get->queue_size,
                               .fd = std::move(file)};
         }
         return offering(self, std::move(request), bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD));
       }},
      {"fresh_inflight_area_refused",
       {79},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* get = as<GetInflightFd>(request)) {
           UniqueFd file(::memfd_create("inflight", MFD_CLOEXEC));
           EXPECT_EQ(::ftruncate(file.get(), 8192), 0);
           return InflightArea{.size = 8192,
                               .offset = 0,
                               .queues = get->queues,
                               .queue_size = get->queue_size,
                               .fd = std::move(file)};
         }
         if (as<SetInflightFd>(request)) return refused("no");
         return offering(self, std::move(request), bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD));
       }},
      {"reset_owner_forgets",
       {91},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<ResetOwner>(request)) return self.right(ResetDevice{});
         return self.right(std::move(request));
       }},
      {"files_swapped",
       {92},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* table = as<SetMemTable>(request); table && table->regions.size() == 2)
           std::swap(table->regions[0].fd, table->regions[1].fd);
         return self.right(std::move(request));
       }},
      {"polling_refused",
       {97},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* kick = as<SetVringKick>(request); kick && !kick->fd) return Done{};
         return self.right(std::move(request));
       }},
      {"never_calls",
       {98},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringCall>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"calls_what_was_taken_back",
       {98},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* set = as<SetVringCall>(request); set && !set->fd) return Done{};
         return self.right(std::move(request));
       }},
      {"err_refused",
       {99},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringErr>(request)) return refused("no");
         return self.right(std::move(request));
       }},
      {"every_mtu_is_right",
       {103},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<NetSetMtu>(request)) return Done{};
         return offering(self, std::move(request), bit(VHOST_USER_PROTOCOL_F_MTU), bit(3));
       }},
      {"every_endianness_is_right",
       {106},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetVringEndian>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"read_only_fields_are_written",
       {108},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* set = as<SetConfig>(request)) {
           self.config = set->config;
           return Done{};
         }
         const bool reads = as<GetConfig>(request) != nullptr;
         Reply reply = self.right(std::move(request));
         if (reads && reply && !self.config.bytes.empty())
           std::ranges::copy(self.config.bytes, std::get<ConfigBytes>(*reply).bytes.begin());
         return reply;
       }},
      {"reset_ignored",
       {117},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<ResetDevice>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"fewer_slots_than_told",
       {119},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<AddMemReg>(request) && self.number++ > 3) return refused("full");
         return self.right(std::move(request));
       }},
      {"no_slots",
       {119},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<GetMaxMemSlots>(request)) return uint64_t{0};
         return self.right(std::move(request));
       }},
      {"added_memory_is_not_mapped",
       {120},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<AddMemReg>(request) && self.number++ > 0) return Done{};
         return self.right(std::move(request));
       }},
      {"removal_by_offset",
       {121},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* remove = as<RemMemReg>(request); remove && remove->layout.file_offset != 0)
           return refused("no such region");
         return self.right(std::move(request));
       }},
      {"removal_does_nothing",
       {121},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<RemMemReg>(request)) return Done{};
         return self.right(std::move(request));
       }},
      {"status_forgotten",
       {122},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<GetStatus>(request)) return uint64_t{0};
         return self.right(std::move(request));
       }},
      {"in_band_calls_are_lost",
       {133},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetFrontEnd>(request)) return Done{};
         return self.right(std::move(request));
       }},
  };
  return all;
}

class CheckOfWrong : public testing::TestWithParam<Case> {};

TEST_P(CheckOfWrong, is_found_out) {
  LocalTarget target([](Device& next) { return std::make_unique<Wrong>(next, GetParam().answer); });
  check::Options options = options_for(GetParam().numbers);
  options.patience.answer = std::chrono::milliseconds(300);
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->size(), GetParam().numbers.size());
  for (const check::Row& row : *rows) {
    EXPECT_EQ(row.finding.verdict, Verdict::fail)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
    EXPECT_FALSE(row.finding.detail.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(requests, CheckOfWrong, testing::ValuesIn(cases()),
                         [](const auto& one) { return std::string(one.param.name); });

// ---- on the wire

using user::Direction;
using user::Frame;
using Frames = std::vector<Frame>;

template <class T>
constexpr uint32_t number_of = user::id_of<DeviceRequest, T>;

struct WireCase {
  const char* name;
  std::set<unsigned> numbers;
  std::function<Frames(Direction, Frame)> change;
  Wrong::Answer answer = {};
};

bool is_reply_to(Direction direction, const Frame& frame, uint32_t request) {
  return direction == Direction::sent && frame.header.request == request;
}

uint64_t u64_in(const Frame& frame) {
  uint64_t value = 0;
  std::memcpy(&value, frame.payload.data(), std::min(sizeof value, frame.payload.size()));
  return value;
}

void set_u64(Frame& frame, uint64_t value) { std::memcpy(frame.payload.data(), &value, sizeof value); }

Frame copy_of(const Frame& frame) {
  return {.header = frame.header, .payload = frame.payload, .fds = {}, .fd_fault = nullptr};
}

// A reply of every kind, with what a device has that moves its state and has shared memory.
Reply device_of_everything(Wrong& self, DeviceRequest request) {
  if (auto* set = as<SetDeviceStateFd>(request)) {
    if (set->direction > 1 || set->phase != 0) return refused("no such transfer");
    EXPECT_EQ(::write(set->fd.get(), "abc", 3), 3);
    return StateChannel{};
  }
  if (as<CheckDeviceState>(request)) return uint64_t{0};
  if (as<GetShmemConfig>(request)) {
    ShmemConfig config{.regions = 1, .sizes = {}};
    config.sizes[3] = 8192;
    return config;
  }
  if (as<GetSharedObject>(request)) return SharedObject{};
  if (as<SetLogBase>(request)) return Done{};
  return offering(self, std::move(request),
                  bit(VHOST_USER_PROTOCOL_F_DEVICE_STATE) | bit(VHOST_USER_PROTOCOL_F_SHMEM) |
                      bit(VHOST_USER_PROTOCOL_F_SHARED_OBJECT) | log_capability);
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

const std::vector<WireCase>& wire_cases() {
  static const std::vector<WireCase> all = {
      {"request_number_in_the_other_order", {1}, in_reply_to<GetFeatures>([](Frame& frame) {
         frame.header.request <<= 24;
       })},
      {"version_3", {2}, in_reply_to<SetFeatures>([](Frame& frame) { frame.header.flags = 7; })},
      {"version_2_from_the_first_reply", {2}, in_reply_to<GetFeatures>([](Frame& frame) {
         frame.header.flags = 6;
       })},
      {"no_reply_flag", {3}, in_reply_to<GetQueueNum>([](Frame& frame) { frame.header.flags = 1; })},
      {"every_request_is_acknowledged",
       {4, 22},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received) frame.header.flags |= user::need_reply_flag;
         return check::just(std::move(frame));
       }},
      {"no_acknowledgements", {4, 22}, without_reply_to<SetFeatures>()},
      {"long_replies", {5}, in_reply_to<GetVringBase>([](Frame& frame) {
         frame.payload.resize(16);
         frame.header.size = 16;
       })},
      {"undefined_flags_are_taken", {17}, in_reply_to<SetConfig>([](Frame& frame) { set_u64(frame, 0); })},
      {"bad_transfers_succeed",
       {19},
       in_reply_to<SetDeviceStateFd>([](Frame& frame) { set_u64(frame, 0x100); }),
       device_of_everything},
      {"regions_that_are_no_pages",
       {21},
       in_reply_to<GetShmemConfig>([](Frame& frame) { frame.payload[8] = std::byte{1}; }),
       device_of_everything},
      {"regions_miscounted",
       {21},
       in_reply_to<GetShmemConfig>([](Frame& frame) { frame.payload[0] = std::byte{5}; }),
       device_of_everything},
      {"answers_twice",
       {22, 125},
       [](Direction direction, Frame frame) {
         Frames both;
         if (is_reply_to(direction, frame, number_of<GetVringBase>)) both.push_back(copy_of(frame));
         both.push_back(std::move(frame));
         return both;
       }},
      {"protocol_features_are_needed",
       {27},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<SetFeatures>)
           set_u64(frame, u64_in(frame) | bit(VHOST_USER_F_PROTOCOL_FEATURES));
         return check::just(std::move(frame));
       }},
      {"protocol_features_unanswered", {28, 89}, without_reply_to<GetProtocolFeatures>()},
      {"features_change",
       {88},
       [count = std::make_shared<std::atomic<int>>(0)](Direction direction, Frame frame) {
         if (is_reply_to(direction, frame, number_of<GetFeatures>))
           set_u64(frame, u64_in(frame) ^ (static_cast<uint64_t>(++*count) << 40));
         return check::just(std::move(frame));
       }},
      {"protocol_features_change",
       {89},
       [count = std::make_shared<std::atomic<int>>(0)](Direction direction, Frame frame) {
         if (is_reply_to(direction, frame, number_of<GetProtocolFeatures>))
           set_u64(frame, u64_in(frame) ^ (static_cast<uint64_t>(++*count) << 40));
         return check::just(std::move(frame));
       }},
      {"state_is_bad",
       {61, 66, 127},
       in_reply_to<CheckDeviceState>([](Frame& frame) { set_u64(frame, 1); }),
       device_of_everything},
      {"state_is_unchecked", {61, 66, 127}, without_reply_to<CheckDeviceState>(), device_of_everything},
      {"in_band_alone",
       {87},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<SetProtocolFeatures>)
           set_u64(frame, u64_in(frame) | bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                              bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
         return check::just(std::move(frame));
       }},
      {"log_base_unanswered", {94}, without_reply_to<SetLogBase>(), device_of_everything},
      {"short_configuration", {107}, in_reply_to<GetConfig>([](Frame& frame) {
         if (frame.payload.size() < 16) return;
         frame.payload.resize(frame.payload.size() - 1);
         frame.header.size -= 1;
       })},
      {"configuration_always_from_0",
       {107},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<GetConfig>)
           std::memset(frame.payload.data(), 0, 4);
         return check::just(std::move(frame));
       }},
      {"removed_files_are_kept",
       {121},
       [kept = std::make_shared<std::vector<UniqueFd>>()](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<RemMemReg>) {
           for (UniqueFd& fd : frame.fds) kept->push_back(std::move(fd));
           frame.fds.clear();
         }
         return check::just(std::move(frame));
       }},
      {"objects_out_of_nothing",
       {123},
       in_reply_to<GetSharedObject>(
           [](Frame& frame) { frame.fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }),
       device_of_everything},
      {"every_answer_is_success",
       {124},
       [](Direction direction, Frame frame) {
         const bool is_ack = is_reply_to(direction, frame, number_of<AddMemReg>) ||
                             is_reply_to(direction, frame, number_of<RemMemReg>);
         if (is_ack) set_u64(frame, 0);
         return check::just(std::move(frame));
       }},
      {"every_answer_is_failure", {124}, in_reply_to<SetFeatures>([](Frame& frame) { set_u64(frame, 1); })},
      {"error_with_a_channel",
       {126},
       in_reply_to<SetDeviceStateFd>([](Frame& frame) {
         set_u64(frame, 1);
         frame.fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
       }),
       device_of_everything},
      {"no_channel_and_no_word_of_it",
       {126},
       in_reply_to<SetDeviceStateFd>([](Frame& frame) { set_u64(frame, 0); }),
       device_of_everything},
      {"shared_memory_changes",
       {128},
       [count = std::make_shared<std::atomic<int>>(0)](Direction direction, Frame frame) {
         if (is_reply_to(direction, frame, number_of<GetShmemConfig>) && ++*count > 50)
           frame.payload[20] = std::byte{1};
         return check::just(std::move(frame));
       },
       device_of_everything},
  };
  return all;
}

class CheckOfWrongMessages : public testing::TestWithParam<WireCase> {};

Decorate decorator_of(const Wrong::Answer& answer) {
  if (!answer) return {};
  return [answer](Device& next) { return std::make_unique<Wrong>(next, answer); };
}

TEST_P(CheckOfWrongMessages, are_found_out) {
  MeddledTarget target(GetParam().change, decorator_of(GetParam().answer));
  check::Options options = options_for(GetParam().numbers);
  options.patience.answer = std::chrono::milliseconds(300);
  options.checks_life = false;
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->size(), GetParam().numbers.size());
  for (const check::Row& row : *rows) {
    EXPECT_EQ(row.finding.verdict, Verdict::fail)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
    EXPECT_NE(row.finding.detail.find("["), std::string::npos) << "no bytes: " << row.finding.detail;
  }
}

INSTANTIATE_TEST_SUITE_P(messages, CheckOfWrongMessages, testing::ValuesIn(wire_cases()),
                         [](const auto& one) { return std::string(one.param.name); });

// Of a network device: frames on a ring that is disabled must go somewhere.
TEST(CheckOfEverything, finds_a_disabled_ring_that_is_not_processed) {
  LocalTarget target;
  check::Options options = options_for({31});
  options.kind = check::find_kind("net");
  options.patience.answer = std::chrono::milliseconds(300);
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->at(0).finding.verdict, Verdict::fail) << rows->at(0).finding.detail;
}

// The same device, right: no check fails because of what else it has.
TEST(CheckOfEverything, finds_nothing_wrong_in_a_device_that_has_more_to_offer) {
  MeddledTarget target([](Direction, Frame frame) { return check::just(std::move(frame)); },
                       decorator_of(device_of_everything));
  const auto rows = check::check_back_end(target, options_for({19, 21, 61, 66, 94, 123, 126, 127, 128}));
  ASSERT_TRUE(rows) << rows.error().to_string();
  for (const check::Row& row : *rows) {
    EXPECT_EQ(row.finding.verdict, Verdict::pass)
        << "N" << row.requirement->number << ": " << row.finding.detail;
  }
}

// It ends when its front-end leaves, as it may.
class OneShotTarget final : public check::Target {
 public:
  Result<std::unique_ptr<check::Lease>> connect() override {
    if (std::exchange(used_, true)) return os_failure("cannot connect", ECONNREFUSED);
    return target_.connect();
  }

 private:
  LocalTarget target_;
  bool used_ = false;
};

TEST(CheckOfEverything, asks_for_restart_where_a_back_end_serves_one_front_end_only) {
  OneShotTarget target;
  const auto rows = check::check_back_end(target, options_for());
  ASSERT_FALSE(rows);
  EXPECT_NE(rows.error().to_string().find("say --restart"), std::string::npos);
}

// A disk that takes any MTU and any endianness: without acknowledgements that cannot be seen.
TEST(CheckOfEverything, does_not_take_silence_for_success) {
  const auto takes_everything = [](Wrong& self, DeviceRequest request) -> Reply {
    if (as<NetSetMtu>(request) || as<SetVringEndian>(request)) return refused("silently");
    constexpr uint64_t extra = bit(VHOST_USER_PROTOCOL_F_MTU) | bit(VHOST_USER_PROTOCOL_F_CROSS_ENDIAN);
    constexpr uint64_t mtu = bit(3);
    return offering(self, std::move(request), extra, mtu);
  };
  ListeningTarget target(decorator_of(takes_everything));
  const std::string path = target.path() + ".proxy";
  ProxyDevice proxy(
      {.back_end = target.path(), .taken = {.capabilities = bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)}});
  auto listener = user::Listener::start().value();
  ASSERT_TRUE(listener->listen(path, proxy));
  check::SocketTarget socket(path, std::chrono::seconds(2));
  const auto rows = check::check_back_end(socket, options_for({103, 106}));
  ASSERT_TRUE(rows) << rows.error().to_string();
  for (const check::Row& row : *rows)
    EXPECT_EQ(row.finding.verdict, Verdict::not_testable) << row.finding.detail;
  listener->stop();
}

// A state that never ends must not hold up the checks.
TEST(CheckOfEverything, gives_up_a_state_channel_that_does_not_end) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reading(ends[0]);
  const UniqueFd writing(ends[1]);
  MeddledTarget target(in_reply_to<SetDeviceStateFd>([&](Frame& frame) {
                         set_u64(frame, 0);
                         frame.fds.clear();
                         frame.fds.push_back(reading.duplicate().value());
                       }),
                       decorator_of(device_of_everything));
  check::Options options = options_for({66});
  options.patience.answer = std::chrono::milliseconds(300);
  options.checks_life = false;
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->at(0).finding.verdict, Verdict::fail);
  EXPECT_NE(rows->at(0).finding.detail.find("does not end"), std::string::npos) << rows->at(0).finding.detail;
}

// Every check that there is has a back-end that it finds wrong.
TEST(CheckOfEverything, has_a_wrong_back_end_for_each_check) {
  std::set<unsigned> caught;
  for (const Case& one : cases()) caught.insert(one.numbers.begin(), one.numbers.end());
  for (const WireCase& one : wire_cases()) caught.insert(one.numbers.begin(), one.numbers.end());
  caught.insert(31);  // below
  // Postcopy needs a userfaultfd, which may be forbidden here.
  caught.insert({111, 113});
  for (const check::Requirement& one : check::requirements()) {
    const bool is_checked = one.back_end.on_frames != nullptr || one.back_end.on_requests != nullptr;
    EXPECT_TRUE(!is_checked || caught.contains(one.number)) << "N" << one.number << " " << one.sentence;
  }
}

}  // namespace
}  // namespace ringway::tools
