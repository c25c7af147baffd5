#include "ringway/vhost/session.h"

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ringway/vhost/recorder_test.h"

namespace ringway::vhost {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::every_feature;
using testing::open_fds;
using testing::RecordingDevice;
using testing::some_fd;
using testing::some_layout;

constexpr uint64_t every_capability = known_protocol_features & ~transport_protocol_features;

class SessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device.features = 0xff;
    device.capabilities = every_capability;
  }
  void agree_on(uint64_t capabilities) {
    ASSERT_TRUE(session.negotiate({.features = every_feature, .capabilities = capabilities}));
    seen_before = device.names().size();
  }
  // What the device was asked since the last call.
  std::vector<std::string> asked() {
    auto names = device.names();
    names.erase(names.begin(), names.begin() + static_cast<ptrdiff_t>(seen_before));
    seen_before += names.size();
    return names;
  }
  RecordingDevice device;
  Session session{device};
  size_t seen_before = 0;
};

TEST_F(SessionTest, negotiates_what_is_both_wanted_and_offered) {
  std::vector<uint64_t> given;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFeatures>(&request)) given.push_back(set->features);
    if (auto* set = std::get_if<SetProtocolFeatures>(&request)) given.push_back(set->capabilities.bits);
  };
  const auto agreed =
      session.negotiate({.features = 0xf0f, .capabilities = bit(VHOST_USER_PROTOCOL_F_CONFIG) | bit(40)});
  ASSERT_TRUE(agreed);
  EXPECT_EQ(agreed->features, 0xfU);
  EXPECT_EQ(agreed->capabilities, bit(VHOST_USER_PROTOCOL_F_CONFIG));
  EXPECT_THAT(given, ElementsAre(bit(VHOST_USER_PROTOCOL_F_CONFIG), 0xfU | bit(30)));
}

TEST_F(SessionTest, N090_SET_OWNER_comes_first) {
  agree_on(0);
  EXPECT_EQ(device.names().front(), "SET_OWNER");
}

TEST_F(SessionTest, the_number_of_queues_is_1_if_the_back_end_does_not_tell) {
  agree_on(0);
  EXPECT_EQ(session.queue_count(), 1U);
  EXPECT_EQ(session.max_memory_slots(), 8U);
  EXPECT_TRUE(asked().empty());
}

// Answers every number by the same.
class Liar final : public Device {
 public:
  Result<DeviceReply> handle(DeviceRequest request) override {
    return std::visit(
        []<class T>(const T&) -> DeviceReply {
          if constexpr (std::is_same_v<typename T::Reply, uint64_t>) return uint64_t{1} << 63;
          if constexpr (std::is_same_v<typename T::Reply, Capabilities>)
            return Capabilities{every_capability};
          return typename T::Reply{};
        },
        request);
  }
};

TEST(Session, H334_H338_senseless_numbers_of_queues_and_slots_are_bounded) {
  Liar liar;
  Session session(liar);
  ASSERT_TRUE(session.negotiate({.capabilities = every_capability}));
  EXPECT_EQ(session.queue_count(), 256U);
  EXPECT_EQ(session.max_memory_slots(), 65536U);
}

TEST(Session, a_config_of_another_size_is_an_error) {
  Liar liar;
  Session session(liar);
  EXPECT_FALSE(session.read_config(0, 8));
}

TEST_F(SessionTest, memory_goes_in_one_table_without_slots_and_is_in_use_when_the_call_returns) {
  agree_on(0);
  const UniqueFd file = some_fd();
  const std::array regions{SharedRegion{some_layout(1), file.get()},
                           SharedRegion{some_layout(2), file.get()}};
  const size_t before = open_fds();
  ASSERT_TRUE(session.map_memory(regions));
  EXPECT_THAT(asked(), ElementsAre("SET_MEM_TABLE", "GET_FEATURES"));
  EXPECT_EQ(open_fds(), before);
  EXPECT_GE(::fcntl(file.get(), F_GETFD), 0) << "the caller's stays open";
}

TEST_F(SessionTest, memory_goes_by_slots_if_there_are_and_only_differences_are_told) {
  agree_on(every_capability);
  const UniqueFd file = some_fd();
  const SharedRegion a{some_layout(1), file.get()};
  const SharedRegion b{some_layout(2), file.get()};
  const SharedRegion c{some_layout(3), file.get()};
  ASSERT_TRUE(session.map_memory(std::array{a, b}));
  EXPECT_THAT(asked(), ElementsAre("ADD_MEM_REG", "ADD_MEM_REG", "GET_FEATURES"));
  ASSERT_TRUE(session.map_memory(std::array{b, c}));
  EXPECT_THAT(asked(), ElementsAre("REM_MEM_REG", "ADD_MEM_REG", "GET_FEATURES"));
  ASSERT_TRUE(session.map_memory({}));
  EXPECT_THAT(asked(), ElementsAre("REM_MEM_REG", "REM_MEM_REG", "GET_FEATURES"));
}

TEST_F(SessionTest, a_slot_that_was_refused_is_tried_again) {
  agree_on(every_capability);
  const UniqueFd file = some_fd();
  const SharedRegion a{some_layout(1), file.get()};
  device.failure = refused("no").error();
  EXPECT_FALSE(session.map_memory(std::array{a}));
  device.failure.reset();
  asked();
  ASSERT_TRUE(session.map_memory(std::array{a}));
  EXPECT_THAT(asked(), ElementsAre("ADD_MEM_REG", "GET_FEATURES"));
}

TEST_F(SessionTest, N037_a_queue_is_configured_then_started_then_enabled_then_kicked_once) {
  agree_on(0);
  UniqueFd kick = some_fd();
  const auto copy = kick.duplicate();
  ASSERT_TRUE(session.start_queue({.ring = 1,
                                   .size = 128,
                                   .base = 7,
                                   .desc = 0x1000,
                                   .driver = 0x2000,
                                   .device = 0x3000,
                                   .kick = std::move(kick),
                                   .call = some_fd()}));
  EXPECT_THAT(asked(), ElementsAre("SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_CALL",
                                   "SET_VRING_KICK", "SET_VRING_ENABLE"));
  uint64_t events = 0;
  ASSERT_EQ(::read(copy->get(), &events, sizeof events), 8);
  EXPECT_EQ(events, 1U);
}

TEST_F(SessionTest, the_three_areas_of_a_queue_go_where_they_belong) {
  SetVringAddr given;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetVringAddr>(&request)) given = *set;
  };
  ASSERT_TRUE(
      session.start_queue({.ring = 1, .size = 128, .desc = 0x1000, .driver = 0x2000, .device = 0x3000}));
  EXPECT_EQ(given.desc, 0x1000U);
  EXPECT_EQ(given.avail, 0x2000U);
  EXPECT_EQ(given.used, 0x3000U);
}

TEST_F(SessionTest, stopping_a_queue_gives_its_base) {
  agree_on(0);
  EXPECT_EQ(session.stop_queue(1), 77U);
  EXPECT_THAT(asked(), ElementsAre("GET_VRING_BASE"));
}

TEST_F(SessionTest, reads_and_writes_the_configuration) {
  agree_on(every_capability);
  EXPECT_EQ(session.read_config(4, 8), Bytes(8));
  EXPECT_TRUE(session.write_config(4, Bytes(2)));
  EXPECT_THAT(asked(), ElementsAre("GET_CONFIG", "SET_CONFIG"));
}

TEST_F(SessionTest, an_MTU_is_told_if_feature_and_capability_are_agreed_upon) {
  std::vector<uint64_t> told;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<NetSetMtu>(&request)) told.push_back(set->mtu);
  };
  agree_on(every_capability);
  EXPECT_TRUE(session.set_mtu(9000));
  EXPECT_THAT(told, ElementsAre(9000U));
  agree_on(every_capability & ~bit(VHOST_USER_PROTOCOL_F_MTU));
  EXPECT_FALSE(session.set_mtu(9000));
  device.features = 0;
  agree_on(every_capability);
  EXPECT_FALSE(session.set_mtu(9000));
  EXPECT_EQ(told.size(), 1U);
}

TEST_F(SessionTest, resets_by_whatever_the_back_end_has) {
  agree_on(every_capability);
  EXPECT_TRUE(session.reset());
  EXPECT_THAT(asked(), ElementsAre("RESET_DEVICE"));
  agree_on(bit(VHOST_USER_PROTOCOL_F_STATUS));
  EXPECT_TRUE(session.reset());
  EXPECT_THAT(asked(), ElementsAre("SET_STATUS"));
  agree_on(0);
  EXPECT_FALSE(session.reset());
}

TEST_F(SessionTest, what_the_device_tells_is_passed_on_and_everything_else_refused) {
  std::shared_ptr<FrontEnd> front_end;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) front_end = set->front_end;
  };
  int changes = 0;
  uint64_t missed = 0;
  ASSERT_TRUE(
      session.listen({.config_changed = [&] { ++changes; },
                      .iotlb_fault = [&](const IotlbMessage& message) { missed = message.iova.value; }}));
  ASSERT_NE(front_end, nullptr);
  EXPECT_TRUE(call(*front_end, ConfigChange{}));
  EXPECT_TRUE(call(*front_end, IotlbFault{{.iova = {0x1000}, .type = IotlbType::miss}}));
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(missed, 0x1000U);
  for (uint32_t id : {3U, 4U, 5U, 6U, 7U, 9U, 10U}) {
    EXPECT_FALSE(front_end->handle(testing::some_front_end_request(id)));
  }
}

TEST_F(SessionTest, a_device_that_is_not_listened_to_may_still_tell) {
  std::shared_ptr<FrontEnd> front_end;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) front_end = set->front_end;
  };
  ASSERT_TRUE(session.listen({}));
  EXPECT_TRUE(call(*front_end, ConfigChange{}));
}

TEST_F(SessionTest, IOTLB_entries_come_and_go) {
  agree_on(0);
  std::vector<IotlbMessage> given;
  device.hook = [&](DeviceRequest& request) {
    if (auto* update = std::get_if<UpdateIotlb>(&request)) given.push_back(update->message);
  };
  ASSERT_TRUE(session.map_iotlb({.iova = {0x1000}, .size = 0x2000, .front_end = {0x3000}, .permission = 3}));
  ASSERT_TRUE(session.unmap_iotlb({0x1000}, 0x2000));
  ASSERT_EQ(given.size(), 2U);
  EXPECT_EQ(given[0].type, IotlbType::update);
  EXPECT_EQ(given[1].type, IotlbType::invalidate);
  EXPECT_EQ(given[1].size, 0x2000U);
}

// Gives whatever in-flight area the test wants.
class AreaGiver final : public Device {
 public:
  Result<DeviceReply> handle(DeviceRequest request) override {
    if (std::holds_alternative<GetInflightFd>(request)) {
      InflightArea area{.size = size, .offset = offset, .queues = queues, .queue_size = 128};
      if (file_size) {
        area.fd = UniqueFd(::memfd_create("area", MFD_CLOEXEC));
        EXPECT_EQ(::ftruncate(area.fd.get(), static_cast<off_t>(*file_size)), 0);
      }
      return area;
    }
    if (auto* set = std::get_if<SetInflightFd>(&request)) given.push_back(std::move(set->area));
    return Done{};
  }
  uint64_t size = 4096;
  uint64_t offset = 0;
  uint16_t queues = 2;
  std::optional<uint64_t> file_size = 4096;
  std::vector<InflightArea> given;
};

TEST(SessionInflight, H337_an_area_that_cannot_be_right_is_not_used) {
  AreaGiver device;
  Session session(device);
  EXPECT_TRUE(session.new_inflight(2, 128));
  device.size = 0;
  EXPECT_FALSE(session.new_inflight(2, 128));
  device.size = 4097;
  EXPECT_FALSE(session.new_inflight(2, 128));
  device.size = 4096;
  device.offset = UINT64_MAX - 4095;
  EXPECT_FALSE(session.new_inflight(2, 128));
  device.offset = 0;
  device.file_size.reset();
  EXPECT_FALSE(session.new_inflight(2, 128));
  device.file_size = 4096;
  device.queues = 3;
  EXPECT_FALSE(session.new_inflight(2, 128));
}

TEST(SessionInflight, N115_the_same_area_is_given_to_one_back_end_after_another) {
  AreaGiver first;
  AreaGiver second;
  const auto area = Session(first).new_inflight(2, 128);
  ASSERT_TRUE(area);
  ASSERT_TRUE(Session(first).use_inflight(*area));
  ASSERT_TRUE(Session(second).use_inflight(*area));
  struct stat one{};
  struct stat other{};
  ASSERT_EQ(::fstat(area->fd.get(), &one), 0);
  ASSERT_EQ(::fstat(second.given.at(0).fd.get(), &other), 0);
  EXPECT_EQ(one.st_ino, other.st_ino);
  EXPECT_EQ(second.given[0].queues, 2);
  EXPECT_EQ(second.given[0].queue_size, 128);
}

}  // namespace
}  // namespace ringway::vhost
