#include "ringway/vhost/fault.h"

#include <gmock/gmock.h>

#include "ringway/vhost/recorder_test.h"
#include "ringway/vhost/trace.h"

namespace ringway::vhost {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::RecordingDevice;
using testing::RecordingFrontEnd;
using testing::some_device_request;
using Kind = Mishap::Kind;

class FaultTest : public ::testing::Test {
 protected:
  Faulty<DeviceRequest> faulty(std::vector<Mishap> mishaps) { return {device, std::move(mishaps)}; }
  RecordingDevice device;
};

TEST_F(FaultTest, without_mishaps_everything_passes) {
  auto device_with_faults = faulty({});
  for (uint32_t id = 1; id <= std::variant_size_v<DeviceRequest>; ++id)
    EXPECT_TRUE(device_with_faults.handle(some_device_request(id))) << id;
  EXPECT_EQ(device.names().size(), std::variant_size_v<DeviceRequest>);
}

TEST_F(FaultTest, the_nth_message_fails_and_the_others_do_not) {
  auto third = faulty({{.kind = Kind::error, .nth = 3, .error = {.fault = Fault::os, .os_error = EIO}}});
  EXPECT_TRUE(call(third, SetOwner{}));
  EXPECT_TRUE(call(third, GetFeatures{}));
  const auto failed = call(third, GetQueueNum{});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().os_error, EIO);
  EXPECT_TRUE(call(third, GetQueueNum{}));
  EXPECT_THAT(device.names(), ElementsAre("SET_OWNER", "GET_FEATURES", "GET_QUEUE_NUM"));
}

TEST_F(FaultTest, a_named_request_is_counted_by_itself) {
  auto second = faulty({{.kind = Kind::error, .request = "GET_QUEUE_NUM", .nth = 2}});
  EXPECT_TRUE(call(second, GetQueueNum{}));
  EXPECT_TRUE(call(second, GetFeatures{}));
  EXPECT_FALSE(call(second, GetQueueNum{}));
  EXPECT_TRUE(call(second, GetQueueNum{}));
}

TEST_F(FaultTest, every_request_of_a_name_can_fail) {
  auto always = faulty({{.kind = Kind::error, .request = "SET_OWNER"}});
  EXPECT_FALSE(call(always, SetOwner{}));
  EXPECT_FALSE(call(always, SetOwner{}));
  EXPECT_TRUE(call(always, GetFeatures{}));
}

TEST_F(FaultTest, a_delay_passes_the_request_on_later) {
  auto late = faulty({{.kind = Kind::delay, .request = "SET_OWNER", .time = 30ms}});
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(call(late, SetOwner{}));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 30ms);
  EXPECT_THAT(device.names(), ElementsAre("SET_OWNER"));
}

TEST_F(FaultTest, a_lost_message_seems_done_if_nothing_is_answered) {
  auto lossy = faulty({{.kind = Kind::drop}});
  EXPECT_TRUE(call(lossy, SetOwner{}));
  const auto features = call(lossy, GetFeatures{});
  ASSERT_FALSE(features);
  EXPECT_EQ(features.error().fault, Fault::violation);
  EXPECT_THAT(device.names(), IsEmpty());
}

TEST_F(FaultTest, after_a_disconnect_nothing_passes_any_more) {
  auto leaves = faulty({{.kind = Kind::disconnect, .nth = 2}});
  EXPECT_TRUE(call(leaves, SetOwner{}));
  for (int i = 0; i < 3; ++i) {
    const auto after = call(leaves, SetOwner{});
    ASSERT_FALSE(after);
    EXPECT_EQ(after.error().fault, Fault::gone);
  }
  EXPECT_EQ(device.names().size(), 1U);
}

TEST_F(FaultTest, the_other_direction_fails_likewise) {
  RecordingFrontEnd front_end;
  Faulty<FrontEndRequest> deaf(front_end, {{.kind = Kind::error, .request = "BACKEND_CONFIG_CHANGE_MSG"}});
  EXPECT_FALSE(call(deaf, ConfigChange{}));
  EXPECT_TRUE(call(deaf, VringCall{0}));
  EXPECT_THAT(front_end.names(), ElementsAre("BACKEND_VRING_CALL"));
}

// ---- Trace

TEST(RequestTrace, it_tells_what_was_asked_and_how_it_was_answered) {
  RecordingDevice device;
  device.features = 7;
  std::vector<std::string> asked;
  std::vector<std::string> answered;
  std::chrono::nanoseconds time{0};
  Trace<DeviceRequest> trace(
      device, {.asked = [&](const DeviceRequest& request) { asked.emplace_back(info_of(request).name); },
               .answered =
                   [&](const RequestInfo& info, const Result<DeviceReply>& reply, auto took) {
                     answered.push_back(std::string(info.name) + (reply ? " done" : " failed"));
                     time = took;
                   }});
  EXPECT_EQ(call(trace, GetFeatures{}), 7U);
  device.failure = Error{.fault = Fault::refused};
  EXPECT_FALSE(call(trace, SetOwner{}));
  EXPECT_THAT(asked, ElementsAre("GET_FEATURES", "SET_OWNER"));
  EXPECT_THAT(answered, ElementsAre("GET_FEATURES done", "SET_OWNER failed"));
  EXPECT_GT(time.count(), 0);
}

TEST(RequestTrace, it_needs_no_observer) {
  RecordingDevice device;
  Trace<DeviceRequest> trace(device, {});
  EXPECT_TRUE(call(trace, SetOwner{}));
}

}  // namespace
}  // namespace ringway::vhost
