#include "ringway/vhost/transcript.h"

#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <string>

#include "ringway/vhost/features.h"
#include "ringway/vhost/recorder_test.h"

namespace ringway::vhost {
namespace {

using testing::RecordingDevice;

UniqueFd some_file() { return UniqueFd(::memfd_create("memory", MFD_CLOEXEC)); }
UniqueFd some_event() { return UniqueFd(::eventfd(0, EFD_CLOEXEC)); }

std::string names_of(const std::vector<DeviceRequest>& requests) {
  std::string names;
  for (const DeviceRequest& request : requests) names += std::string(info_of(request).name) + ' ';
  return names;
}

class TranscriptTest : public ::testing::Test {
 protected:
  template <class T>
  void ask(T request) {
    const auto reply = transcript.handle(DeviceRequest(std::move(request)));
    ASSERT_TRUE(reply) << reply.error().to_string();
  }
  void set_up_ring(RingIndex ring) {
    ask(SetVringNum{.ring = ring, .size = 256});
    ask(SetVringAddr{.ring = ring, .desc = 0x1000, .used = 0x2000, .avail = 0x3000});
    ask(SetVringBase{.ring = ring, .base = 7});
    ask(SetVringCall{.ring = ring, .fd = some_event()});
    ask(SetVringKick{.ring = ring, .fd = some_event()});
    ask(SetVringEnable{.ring = ring, .enable = 1});
  }
  template <class T>
  static const T* find(const std::vector<DeviceRequest>& requests) {
    for (const DeviceRequest& request : requests) {
      if (const T* one = std::get_if<T>(&request)) return one;
    }
    return nullptr;
  }

  RecordingDevice device;
  Transcript transcript{device};
};

TEST_F(TranscriptTest, of_a_fresh_device_there_is_nothing_to_tell) {
  EXPECT_TRUE(transcript.setting()->empty());
  EXPECT_TRUE(transcript.start({})->empty());
}

TEST_F(TranscriptTest, a_ring_is_told_in_two_parts_and_starts_where_it_stands) {
  ask(SetOwner{});
  ask(SetFeatures{.features = bit(VIRTIO_F_VERSION_1)});
  set_up_ring(0);
  EXPECT_EQ(names_of(*transcript.setting()),
            "SET_OWNER SET_FEATURES SET_VRING_NUM SET_VRING_ADDR SET_VRING_CALL ");
  const auto start = transcript.start(std::vector{RingState{.ring = 0, .value = 1234}});
  EXPECT_EQ(names_of(*start), "SET_VRING_BASE SET_VRING_ENABLE SET_VRING_KICK ");
  EXPECT_EQ(find<SetVringBase>(*start)->base, 1234U);
  EXPECT_TRUE(find<SetVringKick>(*start)->fd);
}

TEST_F(TranscriptTest, it_can_be_told_again_and_again) {
  set_up_ring(0);
  for (int i = 0; i < 3; ++i) {
    const auto start = transcript.start({});
    ASSERT_TRUE(start);
    EXPECT_TRUE(find<SetVringKick>(*start)->fd);
    EXPECT_EQ(find<SetVringBase>(*start)->base, 7U);
  }
}

TEST_F(TranscriptTest, a_ring_that_was_stopped_is_not_started) {
  set_up_ring(0);
  ask(GetVringBase{.ring = 0});
  EXPECT_EQ(find<SetVringKick>(*transcript.start({})), nullptr);
}

TEST_F(TranscriptTest, what_was_refused_is_not_told) {
  device.fail_with(refused("not today").error());
  EXPECT_FALSE(transcript.handle(SetVringNum{.ring = 0, .size = 256}));
  EXPECT_TRUE(transcript.setting()->empty());
}

TEST_F(TranscriptTest, a_reset_leaves_memory_and_call_fds) {
  ask(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_RESET_DEVICE)}});
  SetMemTable table;
  table.regions.push_back({.layout = {.size = 4096}, .fd = some_file()});
  ask(std::move(table));
  set_up_ring(0);
  ask(ResetDevice{});
  EXPECT_EQ(names_of(*transcript.setting()), "SET_PROTOCOL_FEATURES SET_MEM_TABLE SET_VRING_CALL ");
  EXPECT_EQ(find<SetVringKick>(*transcript.start({})), nullptr);
}

TEST_F(TranscriptTest, memory_slots_are_told_one_by_one_without_those_that_were_removed) {
  const memory::RegionLayout first{.size = 4096};
  const memory::RegionLayout second{.guest = {4096}, .size = 4096, .front_end = {4096}};
  ask(AddMemReg{{.layout = first, .fd = some_file()}});
  ask(AddMemReg{{.layout = second, .fd = some_file()}});
  ask(RemMemReg{first});
  const auto told = transcript.setting();
  EXPECT_EQ(names_of(*told), "ADD_MEM_REG ");
  EXPECT_EQ(find<AddMemReg>(*told)->region.layout, second);
}

TEST_F(TranscriptTest, iotlb_entries_are_those_that_are_left) {
  const auto entry = [](uint64_t iova) {
    return IotlbMessage{.iova = {iova}, .size = 4096, .front_end = {iova}, .permission = 3};
  };
  for (const uint64_t iova : {0x1000, 0x2000, 0x3000}) ask(UpdateIotlb{entry(iova)});
  ask(UpdateIotlb{{.iova = {0x2000}, .size = 4096, .type = IotlbType::invalidate}});
  EXPECT_EQ(names_of(*transcript.setting()), "IOTLB_MSG IOTLB_MSG ");
  ask(UpdateIotlb{{.iova = {0}, .size = 0, .type = IotlbType::invalidate}});
  EXPECT_TRUE(transcript.setting()->empty());
}

TEST_F(TranscriptTest, the_last_write_to_a_field_of_the_configuration_counts) {
  for (const auto value : {std::byte{0}, std::byte{1}}) ask(SetConfig{{.offset = 32, .bytes = {value}}});
  const auto told = transcript.setting();
  EXPECT_EQ(names_of(*told), "SET_CONFIG ");
  EXPECT_EQ(find<SetConfig>(*told)->config.bytes[0], std::byte{1});
}

TEST_F(TranscriptTest, status_0_is_not_told_for_it_would_reset_what_a_fresh_device_is_given_besides) {
  ask(SetStatus{0});
  EXPECT_EQ(find<SetStatus>(*transcript.start({})), nullptr);
  ask(SetStatus{4});
  ASSERT_NE(find<SetStatus>(*transcript.start({})), nullptr);
}

TEST_F(TranscriptTest, while_the_state_of_the_device_moves_nothing_is_told) {
  ask(SetDeviceStateFd{.direction = 1});
  EXPECT_FALSE(transcript.setting());
  ask(CheckDeviceState{});
  EXPECT_TRUE(transcript.setting());
}

TEST_F(TranscriptTest, while_a_migration_is_under_way_nothing_is_told) {
  ask(PostcopyAdvise{});
  EXPECT_FALSE(transcript.setting());
  ask(PostcopyEnd{});
  EXPECT_TRUE(transcript.setting());
}

}  // namespace
}  // namespace ringway::vhost
