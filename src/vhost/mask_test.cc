#include "ringway/vhost/mask.h"

#include <gmock/gmock.h>
#include <linux/virtio_config.h>

#include "ringway/vhost/contract.h"
#include "ringway/vhost/recorder_test.h"
#include "ringway/vhost/session.h"

namespace ringway::vhost {
namespace {

using testing::every_feature;
using testing::RecordingDevice;
using testing::RecordingFrontEnd;
using testing::some_device_request;
using testing::some_fd;
using testing::some_front_end_request;

constexpr uint64_t every_capability = known_protocol_features & ~transport_protocol_features;

class MaskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device.features = every_feature;
    device.capabilities = every_capability;
  }
  template <class T>
  static bool refuses(Mask& mask, RecordingDevice& device, T request, Fault fault = Fault::refused) {
    const size_t before = device.names().size();
    const auto result = mask.handle(std::move(request));
    EXPECT_EQ(device.names().size(), before) << "it reached the device";
    return !result && result.error().fault == fault;
  }
  RecordingDevice device;
};

TEST_F(MaskTest, a_mask_of_nothing_passes_everything) {
  Mask mask(device, {});
  for (uint32_t id = 1; id <= std::variant_size_v<DeviceRequest>; ++id) {
    EXPECT_TRUE(mask.handle(some_device_request(id))) << id;
    EXPECT_EQ(device.names().size(), id);
  }
  EXPECT_EQ(call(mask, GetFeatures{}), every_feature);
  EXPECT_EQ(call(mask, GetProtocolFeatures{})->bits, every_capability);
}

TEST_F(MaskTest, what_is_taken_is_not_offered_and_the_rest_is) {
  Mask mask(device,
            {.features = bit(VIRTIO_F_RING_PACKED), .capabilities = bit(VHOST_USER_PROTOCOL_F_CONFIG)});
  EXPECT_EQ(call(mask, GetFeatures{}), every_feature & ~bit(VIRTIO_F_RING_PACKED));
  EXPECT_EQ(call(mask, GetProtocolFeatures{})->bits, every_capability & ~bit(VHOST_USER_PROTOCOL_F_CONFIG));
}

TEST_F(MaskTest, what_the_device_does_not_offer_is_not_made_up) {
  device.features = 0;
  device.capabilities = 0;
  Mask mask(device, {.features = 1});
  EXPECT_EQ(call(mask, GetFeatures{}), 0U);
  EXPECT_EQ(call(mask, GetProtocolFeatures{})->bits, 0U);
}

TEST_F(MaskTest, taken_bits_cannot_be_negotiated_all_the_same) {
  Mask mask(device, {.features = bit(5), .capabilities = bit(VHOST_USER_PROTOCOL_F_STATUS)});
  EXPECT_TRUE(refuses(mask, device, SetFeatures{bit(5) | bit(6)}, Fault::violation));
  EXPECT_TRUE(
      refuses(mask, device, SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_STATUS)}}, Fault::violation));
  EXPECT_TRUE(call(mask, SetFeatures{bit(6)}));
  EXPECT_TRUE(call(mask, SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_CONFIG)}}));
}

// For every message of the catalogue: with the bit it needs taken away it does not reach the device.
TEST_F(MaskTest, a_request_that_needs_a_taken_bit_is_refused) {
  int refused = 0;
  for (uint32_t id = 1; id <= std::variant_size_v<DeviceRequest>; ++id) {
    const Need need = catalogue<DeviceRequest>[id - 1].need;
    if (need.kind == Need::Kind::nothing) continue;
    const bool is_feature = need.kind == Need::Kind::feature;
    Mask mask(device,
              {.features = is_feature ? bit(need.bit) : 0, .capabilities = is_feature ? 0 : bit(need.bit)});
    EXPECT_TRUE(refuses(mask, device, some_device_request(id))) << id;
    ++refused;
  }
  EXPECT_GT(refused, 20);
}

TEST_F(MaskTest, the_device_may_not_tell_what_needs_a_taken_bit) {
  for (uint32_t id = 1; id <= std::variant_size_v<FrontEndRequest>; ++id) {
    const Need need = catalogue<FrontEndRequest>[id - 1].need;
    const bool is_feature = need.kind == Need::Kind::feature;
    Mask mask(device,
              {.features = is_feature ? bit(need.bit) : 0, .capabilities = is_feature ? 0 : bit(need.bit)});
    std::shared_ptr<FrontEnd> given;
    device.hook = [&](DeviceRequest& request) {
      if (auto* set = std::get_if<SetFrontEnd>(&request)) given = set->front_end;
    };
    auto front_end = std::make_shared<RecordingFrontEnd>();
    ASSERT_TRUE(call(mask, SetFrontEnd{front_end}));
    ASSERT_NE(given, nullptr);
    EXPECT_FALSE(given->handle(some_front_end_request(id))) << id;
    EXPECT_TRUE(front_end->names().empty());
    const uint32_t other = id == 2 ? 4 : 2;
    EXPECT_TRUE(given->handle(some_front_end_request(other))) << id;
    EXPECT_EQ(front_end->names().size(), 1U);
  }
}

TEST_F(MaskTest, bits_that_need_a_taken_bit_go_with_it) {
  const Mask::Taken inflight =
      Mask::with_consequences({.capabilities = bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)});
  EXPECT_TRUE(inflight.has_capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT));
  EXPECT_TRUE(inflight.has_capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN));
  EXPECT_FALSE(inflight.has_capability(VHOST_USER_PROTOCOL_F_CONFIG));
  const Mask::Taken channel =
      Mask::with_consequences({.capabilities = bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ)});
  EXPECT_TRUE(channel.has_feature(VIRTIO_F_ACCESS_PLATFORM));
  EXPECT_TRUE(channel.has_capability(VHOST_USER_PROTOCOL_F_SHMEM));
  EXPECT_FALSE(channel.has_capability(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  const Mask::Taken all = Mask::with_consequences({.features = bit(VHOST_USER_F_PROTOCOL_FEATURES)});
  EXPECT_EQ(all.capabilities, ~uint64_t{0});
  EXPECT_TRUE(all.has_feature(VIRTIO_F_ACCESS_PLATFORM));
}

TEST_F(MaskTest, requests_that_need_a_bit_to_be_offered_are_refused_too) {
  Mask no_queues(device, {.capabilities = bit(VHOST_USER_PROTOCOL_F_MQ)});
  EXPECT_TRUE(refuses(no_queues, device, GetQueueNum{}));
  Mask no_log(device, {.features = bit(VHOST_F_LOG_ALL)});
  EXPECT_TRUE(refuses(no_log, device, SetLogBase{.offset = 4096}));
  EXPECT_TRUE(refuses(no_log, device, SetLogFd{some_fd()}));
  EXPECT_TRUE(refuses(no_log, device, SetVringAddr{.flags = 1U << VHOST_VRING_F_LOG}));
  EXPECT_TRUE(call(no_log, SetVringAddr{}));
  Mask no_log_file(device, {.capabilities = bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD)});
  EXPECT_TRUE(refuses(no_log_file, device, SetLogBase{.size = 4096, .fd = some_fd()}));
  EXPECT_TRUE(call(no_log_file, SetLogBase{.offset = 4096}));
  Mask nothing_extra(device, {.features = bit(VHOST_USER_F_PROTOCOL_FEATURES)});
  EXPECT_TRUE(refuses(nothing_extra, device, SetVringEnable{0, 1}));
}

TEST_F(MaskTest, two_masks_take_what_either_takes) {
  Mask inner(device, {.features = bit(1)});
  Mask outer(inner, {.features = bit(2)});
  EXPECT_EQ(call(outer, GetFeatures{}), every_feature & ~bit(1) & ~bit(2));
}

// The goals of a front-end, with everything between: what it gets is what is left.
TEST_F(MaskTest, a_front_end_gets_by_with_what_is_left) {
  device.capabilities = every_capability;
  Contract contract(device, {.queues = 4});
  Mask mask(contract,
            {.features = bit(VIRTIO_F_RING_PACKED), .capabilities = bit(VHOST_USER_PROTOCOL_F_CONFIG)});
  Session session(mask);
  const auto agreed = session.negotiate({.features = every_feature, .capabilities = every_capability});
  ASSERT_TRUE(agreed) << agreed.error().to_string();
  EXPECT_FALSE(agreed->has_feature(VIRTIO_F_RING_PACKED));
  EXPECT_FALSE(agreed->has_capability(VHOST_USER_PROTOCOL_F_CONFIG));
  EXPECT_FALSE(session.read_config(0, 8));
  EXPECT_FALSE(device.saw("GET_CONFIG"));
}

}  // namespace
}  // namespace ringway::vhost
