// Back-ends that are wrong at the request seam.
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ringway/base/notifier.h"
#include "ringway/base/quiet_write.h"
#include "ringway/tools/check_wrong_test.h"

namespace ringway::tools {
namespace {

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

}  // namespace

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
         if (stops)
           self.later([&self, count = 0]() mutable { self.mapping.data()[100] = std::byte(++count); });
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
      {"state_is_read_in_part",
       {62},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* transfer = as<SetDeviceStateFd>(request)) {
           if (transfer->direction == 1)
             self.fd = std::move(transfer->fd);
           else
             quiet_write(transfer->fd.get(), std::as_bytes(std::span("abc", 3)));
           return StateChannel{};
         }
         if (as<CheckDeviceState>(request) == nullptr) return self.right(std::move(request));
         char byte = 0;
         const ssize_t got = self.fd ? ::read(self.fd.get(), &byte, 1) : 0;
         return static_cast<uint64_t>(got < 0);
       }},
      {"its_own_state_is_refused",
       {62},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* transfer = as<SetDeviceStateFd>(request)) self.number = transfer->direction;
         if (as<CheckDeviceState>(request) && self.number == 1) return uint64_t{1};
         return self.right(std::move(request));
       }},
      {"gone_after_a_save",
       {67},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (as<SetDeviceStateFd>(request)) self.number = 1;
         if (as<SetVringKick>(request) && self.number == 1) return Done{};
         return self.right(std::move(request));
       }},
      {"goes_on_without_a_drain",
       {129},
       [](Wrong& self, DeviceRequest request) -> Reply {
         if (auto* stop = as<GetVringBaseSkipDrain>(request)) return RingState{stop->ring, 20};
         return self.right(std::move(request));
       }},
      {"lost_without_a_drain",
       {129},
       [](Wrong& self, DeviceRequest request) -> Reply {
         const bool stops = as<GetVringBaseSkipDrain>(request) != nullptr;
         Reply reply = self.right(std::move(request));
         if (stops && reply) ++std::get<RingState>(*reply).value;
         return reply;
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

namespace {

class CheckOfWrong : public testing::TestWithParam<Case> {};

TEST_P(CheckOfWrong, is_found_out) {
  LocalTarget target([](Device& next) { return std::make_unique<Wrong>(next, GetParam().answer); });
  check::Options options = options_for(GetParam().numbers);
  options.patience.answer = std::chrono::milliseconds(600);
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

}  // namespace
}  // namespace ringway::tools
