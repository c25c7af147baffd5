#include "ringway/user/fields.h"

#include <gmock/gmock.h>

#include "ringway/user/peer_test.h"

namespace ringway::user {
namespace {

using namespace testing;
using namespace vhost;

class Sockets final : public BackChannel {
  Result<std::shared_ptr<FrontEnd>> reach(UniqueFd) override { return refused(""); }
  Result<UniqueFd> serve(std::shared_ptr<FrontEnd>) override { return some_fd(); }
};

// That the fields are all of what the codec writes, and nothing more.
void expect_whole(const Layout& layout, const Frame& frame, const char* name) {
  const FieldValues values = read_fields(layout, frame.payload);
  EXPECT_FALSE(values.is_short) << name;
  if (*layout.rest == '\0') {
    EXPECT_TRUE(values.rest.empty()) << name;
  }
}

uint64_t value(const FieldValues& values, std::string_view name) {
  for (const FieldValue& one : values.fixed) {
    if (one.field.name == name) return one.number;
  }
  ADD_FAILURE() << "no field " << name;
  return 0;
}

TEST(Fields, every_request_of_the_codec_is_all_fields) {
  Sockets sockets;
  for (uint32_t id = 1; id <= std::variant_size_v<DeviceRequest>; ++id) {
    const auto frame = encode<DeviceRequest>(some_device_request(id), &sockets);
    ASSERT_TRUE(frame);
    expect_whole(request_layout<DeviceRequest>(id), *frame, message_name<DeviceRequest>(id));
  }
  for (uint32_t id = 1; id <= std::variant_size_v<FrontEndRequest>; ++id) {
    const auto frame = encode<FrontEndRequest>(some_front_end_request(id));
    ASSERT_TRUE(frame);
    expect_whole(request_layout<FrontEndRequest>(id), *frame, message_name<FrontEndRequest>(id));
  }
}

TEST(Fields, every_reply_of_the_codec_is_all_fields) {
  RecordingDevice device;
  for (uint32_t id = 1; id <= std::variant_size_v<DeviceRequest>; ++id) {
    auto reply = device.handle(some_device_request(id));
    ASSERT_TRUE(reply);
    const auto frame = encode_reply<DeviceRequest>(*find_message<DeviceRequest>(id), *std::move(reply));
    ASSERT_TRUE(frame) << id;
    expect_whole(reply_layout<DeviceRequest>(id), *frame, message_name<DeviceRequest>(id));
  }
}

TEST(Fields, values_are_where_the_codec_has_put_them) {
  auto frame = encode<DeviceRequest>(SetVringAddr{2, 1, 0x1000, 0x2000, 0x3000, 0x4000});
  auto values = read_fields(request_layout<DeviceRequest>(9), frame->payload);
  EXPECT_EQ(value(values, "ring"), 2U);
  EXPECT_EQ(value(values, "flags"), 1U);
  EXPECT_EQ(value(values, "descriptors"), 0x1000U);
  EXPECT_EQ(value(values, "used"), 0x2000U);
  EXPECT_EQ(value(values, "available"), 0x3000U);
  EXPECT_EQ(value(values, "log"), 0x4000U);
  frame = encode<DeviceRequest>(
      SetInflightFd{{.size = 1, .offset = 2, .queues = 3, .queue_size = 4, .fd = some_fd()}});
  values = read_fields(request_layout<DeviceRequest>(32), frame->payload);
  EXPECT_EQ(value(values, "queues"), 3U);
  EXPECT_EQ(value(values, "queue_size"), 4U);
  frame = encode<FrontEndRequest>(
      IotlbFault{{.iova = {7}, .size = 8, .front_end = {9}, .permission = 2, .type = IotlbType::miss}});
  values = read_fields(request_layout<FrontEndRequest>(1), frame->payload);
  EXPECT_EQ(value(values, "iova"), 7U);
  EXPECT_EQ(value(values, "permission"), 2U);
  EXPECT_EQ(value(values, "type"), 1U);
}

TEST(Fields, regions_repeat_as_often_as_there_is_room) {
  const auto frame = encode<DeviceRequest>(some_device_request(5));
  const auto values = read_fields(request_layout<DeviceRequest>(5), frame->payload);
  EXPECT_EQ(value(values, "regions"), 2U);
  ASSERT_EQ(values.repeated.size(), 2U);
  EXPECT_EQ(values.repeated[1].at(0).number, uint64_t{2} << 32);
  EXPECT_EQ(values.repeated[1].at(2).number, uint64_t{2} << 40);
}

TEST(Fields, shorter_forms_are_told_by_their_size) {
  const Bytes eight(8, std::byte{1});
  const auto log = read_fields(request_layout<DeviceRequest>(6), eight);
  ASSERT_EQ(log.fixed.size(), 1U);
  EXPECT_STREQ(log.fixed[0].field.name, "base");
  const auto table = read_fields(reply_layout<DeviceRequest>(5), eight);
  EXPECT_STREQ(table.fixed.at(0).field.name, "result");
}

TEST(Fields, a_payload_of_any_size_is_read_as_far_as_it_goes) {
  for (uint32_t id = 0; id < 60; ++id) {
    for (size_t size = 0; size < 80; ++size) {
      const Bytes payload(size, std::byte{0xff});
      for (const Layout& layout : {request_layout<DeviceRequest>(id), reply_layout<DeviceRequest>(id),
                                   request_layout<FrontEndRequest>(id), reply_layout<FrontEndRequest>(id)}) {
        const auto values = read_fields(layout, payload);
        size_t seen = values.rest.size();
        for (const FieldValue& one : values.fixed) seen += one.field.size;
        for (const auto& row : values.repeated) {
          for (const FieldValue& one : row) seen += one.field.size;
        }
        ASSERT_EQ(seen, size) << id;
      }
    }
  }
}

}  // namespace
}  // namespace ringway::user
