#include "ringway/user/server.h"

#include <gmock/gmock.h>

#include <set>

#include "ringway/user/peer_test.h"

namespace ringway::user {
namespace {

using namespace testing;
using namespace vhost;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr uint64_t every_protocol_feature = known_protocol_features;

// A DeviceServer on a thread, and the front-end as a raw peer.
class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device.capabilities = every_protocol_feature & ~transport_protocol_features;
    auto [raw, connection] = make_pair({.message_time_out = 300ms});
    peer = std::move(raw);
    served = std::async(std::launch::async,
                        [this, ours = std::move(connection)] { return DeviceServer(ours, device).serve(); });
  }
  void TearDown() override {
    peer.close();
    if (served.valid()) served.get();
  }
  // As a front-end does that wants everything.
  void negotiate(uint64_t protocol_features = every_protocol_feature, uint64_t features = every_feature) {
    peer.send(u64_frame(16, version, protocol_features));
    peer.send(u64_frame(2, version, features));
    barrier();
  }
  // Everything sent before has been served when this returns, and nothing was answered.
  void barrier() { EXPECT_EQ(peer.ask(empty_frame(1)).header.request, 1U); }
  // Sends one good request of this id with need_reply.
  void send_good(uint32_t id, uint32_t flags = version | need_reply_flag) {
    auto frame = encode<DeviceRequest>(some_device_request(id), &back_channel);
    ASSERT_TRUE(frame);
    frame->header.flags = flags;
    peer.send(*frame);
  }
  Error end() { return served.get(); }

  class Sockets final : public BackChannel {
    Result<std::shared_ptr<FrontEnd>> reach(UniqueFd) override { return refused(""); }
    Result<UniqueFd> serve(std::shared_ptr<FrontEnd>) override {
      auto ends = socket_pair();
      last_end = std::move((*ends)[0]);
      return std::move((*ends)[1]);
    }
    UniqueFd last_end;
  } back_channel;
  RecordingDevice device;
  Peer peer;
  std::future<Error> served;
};

// ---- negotiation

TEST_F(ServerTest, N088_bit_30_is_added_to_what_the_device_offers) {
  device.features = 0x7;
  EXPECT_EQ(u64_of(peer.ask(empty_frame(1))), 0x7 | bit(30));
}

TEST_F(ServerTest, the_sockets_own_features_are_added_and_kept_from_the_device) {
  device.capabilities = bit(VHOST_USER_PROTOCOL_F_CONFIG);
  EXPECT_EQ(u64_of(peer.ask(empty_frame(15))),
            bit(VHOST_USER_PROTOCOL_F_CONFIG) | transport_protocol_features);
  uint64_t given = 0;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetProtocolFeatures>(&request)) given = set->capabilities.bits;
  };
  peer.send(u64_frame(16, version, bit(VHOST_USER_PROTOCOL_F_CONFIG) | transport_protocol_features));
  barrier();
  EXPECT_EQ(given, bit(VHOST_USER_PROTOCOL_F_CONFIG));
}

TEST_F(ServerTest, bit_30_of_SET_FEATURES_is_passed_on_as_the_front_end_sent_it) {
  std::vector<uint64_t> given;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFeatures>(&request)) given.push_back(set->features);
  };
  peer.send(u64_frame(2, version, 5 | bit(30)));
  peer.send(u64_frame(2, version, 5));
  barrier();
  EXPECT_EQ(given, (std::vector<uint64_t>{5 | bit(30), 5}));
}

TEST_F(ServerTest, H047_protocol_features_work_before_SET_FEATURES) {
  EXPECT_EQ(peer.ask(empty_frame(15)).header.request, 15U);
  EXPECT_EQ(u64_of(peer.ask(u64_frame(16, version | need_reply_flag, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)))),
            0U);
}

TEST_F(ServerTest, the_message_that_negotiates_REPLY_ACK_is_itself_acknowledged_as_user_mode_linux_expects) {
  const Frame reply =
      peer.ask(u64_frame(16, version | need_reply_flag, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)));
  EXPECT_EQ(reply.header, (Header{.request = 16, .flags = version | reply_flag, .size = 8}));
}

TEST_F(ServerTest, need_reply_is_answered_though_GET_PROTOCOL_FEATURES_was_never_asked) {
  peer.send(u64_frame(16, version, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)));
  EXPECT_EQ(u64_of(peer.ask(empty_frame(3, version | need_reply_flag))), 0U);
}

TEST_F(ServerTest, H056_without_REPLY_ACK_need_reply_is_not_answered) {
  peer.send(empty_frame(3, version | need_reply_flag));
  peer.send(state_frame(8, version | need_reply_flag, 0, 128));
  barrier();
  EXPECT_THAT(device.names(), Contains("SET_VRING_NUM"));
}

TEST_F(ServerTest, H052_in_band_notifications_without_the_other_two_close_the_connection) {
  peer.send(u64_frame(
      16, version, bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS) | bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ)));
  EXPECT_TRUE(peer.closed());
  EXPECT_FALSE(device.saw("SET_PROTOCOL_FEATURES"));
}

TEST_F(ServerTest, H052_closes_even_if_an_acknowledgement_is_asked_for) {
  peer.send(u64_frame(16, version, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)));
  peer.send(
      u64_frame(16, version | need_reply_flag,
                bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS) | bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)));
  EXPECT_TRUE(peer.closed());
}

TEST_F(ServerTest, in_band_notifications_with_the_other_two_are_accepted) {
  EXPECT_EQ(u64_of(peer.ask(u64_frame(16, version | need_reply_flag,
                                      bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS) |
                                          bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                                          bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)))),
            0U);
}

TEST_F(ServerTest, refused_protocol_features_leave_the_old_ones) {
  negotiate(bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  device.failure = refused("no").error();
  EXPECT_EQ(u64_of(peer.ask(u64_frame(16, version | need_reply_flag, every_protocol_feature))), 1U);
  device.failure.reset();
  EXPECT_EQ(u64_of(peer.ask(empty_frame(3, version | need_reply_flag))), 0U);    // REPLY_ACK still
  EXPECT_EQ(u64_of(peer.ask(u64_frame(39, version | need_reply_flag, 1))), 1U);  // STATUS still not
}

// ---- the matrix of replies

TEST_F(ServerTest, N124_N125_every_good_message_is_answered_exactly_once_if_asked) {
  negotiate();
  for (const Message& message : messages<DeviceRequest>) {
    SCOPED_TRACE(message_name<DeviceRequest>(message.id));
    send_good(message.id);
    const Frame reply = peer.receive();
    EXPECT_EQ(reply.header.request, message.id);
    EXPECT_EQ(reply.header.flags, version | reply_flag) << "NEED_REPLY must not be echoed";
    EXPECT_TRUE(size_rule(message.reply_payload).allows(reply.payload.size()));
    const bool is_ack = message.reply != Reply::value && message.reply != Reply::value_or_refusal;
    if (is_ack) {
      EXPECT_EQ(u64_of(reply), 0U);
    }
    if (message.id == 16) negotiate();  // the sample has none
    if (message.id == 2) negotiate();
    EXPECT_FALSE(peer.readable(0ms)) << "a second reply";
  }
}

TEST_F(ServerTest, N022_without_need_reply_only_messages_that_own_a_reply_are_answered) {
  negotiate();
  const std::set<uint32_t> always = {1, 6, 11, 15, 17, 22, 24, 26, 28, 30, 31, 36, 40, 41, 42, 43, 44, 45};
  for (const Message& message : messages<DeviceRequest>) {
    SCOPED_TRACE(message_name<DeviceRequest>(message.id));
    send_good(message.id, version);
    if (always.contains(message.id)) {
      EXPECT_EQ(peer.receive().header.request, message.id);
    }
    barrier();
    if (message.id == 16 || message.id == 2) negotiate();
  }
}

TEST_F(ServerTest, a_log_base_is_answered_always_only_with_LOG_SHMFD) {
  negotiate(0);
  send_good(6, version);
  barrier();
  negotiate(bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD));
  send_good(6, version);
  EXPECT_EQ(u64_of(peer.receive()), 0U);
}

TEST_F(ServerTest,
       N124_every_message_that_the_device_refuses_is_answered_by_a_failure_and_the_connection_stays) {
  negotiate();
  device.failure = refused("no").error();
  for (const Message& message : messages<DeviceRequest>) {
    if (message.reply == Reply::value) continue;
    SCOPED_TRACE(message_name<DeviceRequest>(message.id));
    send_good(message.id);
    const Frame reply = peer.receive();
    EXPECT_EQ(reply.header.request, message.id);
    EXPECT_EQ(reply.header.flags, version | reply_flag);
    EXPECT_TRUE(reply.fds.empty());
    const bool has_u64 = message.reply_payload == Payload::u64 || message.reply != Reply::value_or_refusal;
    if (has_u64) {
      EXPECT_NE(u64_of(reply), 0U);
    }
    EXPECT_FALSE(peer.readable(0ms)) << "a second reply";
  }
  device.failure.reset();
  barrier();
}

// A payload of a wrong size, where there is one.
TEST_F(ServerTest, N124_every_malformed_message_is_answered_by_a_failure_and_never_reaches_the_device) {
  negotiate();
  const size_t asked_before = device.names().size();
  for (const Message& message : messages<DeviceRequest>) {
    if (message.reply == Reply::value) continue;
    SCOPED_TRACE(message_name<DeviceRequest>(message.id));
    Frame frame = empty_frame(message.id, version | need_reply_flag);
    frame.header.size = 4;
    frame.payload.resize(4);
    const Frame reply = peer.ask(frame);
    EXPECT_EQ(reply.header.request, message.id);
    const bool has_u64 = message.reply_payload == Payload::u64 || message.reply != Reply::value_or_refusal;
    if (has_u64) {
      EXPECT_NE(u64_of(reply), 0U);
    }
  }
  EXPECT_EQ(device.names().size(), asked_before);
  barrier();
}

TEST_F(ServerTest, a_malformed_message_without_need_reply_closes_the_connection) {
  Frame frame = empty_frame(8);
  frame.header.size = 16;
  frame.payload.resize(16);
  peer.send(frame);
  EXPECT_TRUE(peer.closed());
  const Error why = end();
  EXPECT_EQ(why.fault, Fault::violation);
  EXPECT_THAT(why.to_string(), HasSubstr("SET_VRING_NUM: payload must be 8 bytes (16"));
}

TEST_F(ServerTest, what_the_device_refuses_without_need_reply_is_passed_over) {
  device.hook = [&](DeviceRequest& request) {
    device.failure.reset();
    if (std::holds_alternative<SetVringNum>(request)) device.failure = refused("no").error();
  };
  peer.send(state_frame(8, version, 0, 128));
  peer.send(state_frame(8, version, 0, 256));
  barrier();
  EXPECT_EQ(device.names().size(), 3U);
}

TEST_F(ServerTest, a_violation_found_by_the_device_closes_without_need_reply) {
  device.hook = [&](DeviceRequest& request) {
    if (std::holds_alternative<SetVringNum>(request)) device.failure = violation("bad ring").error();
  };
  peer.send(state_frame(8, version, 9, 128));
  EXPECT_TRUE(peer.closed());
}

TEST_F(ServerTest, a_refused_message_whose_reply_cannot_say_no_closes_the_connection) {
  negotiate();
  device.failure = refused("no").error();
  peer.send(state_frame(11, version | need_reply_flag, 0, 0));
  EXPECT_TRUE(peer.closed());
}

TEST_F(ServerTest, a_device_that_is_gone_ends_the_connection) {
  negotiate();
  device.failure = gone("the other side left").error();
  peer.send(empty_frame(3, version | need_reply_flag));
  EXPECT_TRUE(peer.closed());
}

TEST_F(ServerTest, a_GET_CONFIG_that_fails_is_answered_by_an_empty_payload) {
  negotiate();
  device.failure = refused("no").error();
  send_good(24, version);
  const Frame reply = peer.receive();
  EXPECT_EQ(reply.header, (Header{.request = 24, .flags = version | reply_flag, .size = 0}));
}

TEST_F(ServerTest, N107_a_config_reply_has_the_size_that_was_asked_for) {
  negotiate();
  for (const uint32_t size : {0U, 1U, 60U, 256U}) {
    auto frame = encode<DeviceRequest>(GetConfig{.offset = 2, .size = size});
    ASSERT_TRUE(frame);
    EXPECT_EQ(peer.ask(*frame).header.size, 12 + size);
  }
}

TEST_F(ServerTest, N027_what_was_not_negotiated_is_refused) {
  negotiate(bit(VHOST_USER_PROTOCOL_F_REPLY_ACK), 0);
  for (const Message& message : messages<DeviceRequest>) {
    if (catalogue<DeviceRequest>[message.id - 1].need.kind == Need::Kind::nothing ||
        message.reply == Reply::value)
      continue;
    SCOPED_TRACE(message_name<DeviceRequest>(message.id));
    send_good(message.id);
    EXPECT_EQ(peer.receive().header.request, message.id);
    EXPECT_FALSE(device.saw(message_name<DeviceRequest>(message.id)));
  }
  barrier();
}

// ---- framing

TEST_F(ServerTest, H002_a_header_in_twelve_pieces_is_a_header) {
  negotiate();
  Frame frame = u64_frame(39, version | need_reply_flag, 3);
  for (const std::byte one : bytes_of(frame)) peer.send(std::span(&one, 1));
  EXPECT_EQ(u64_of(peer.receive()), 0U);
}

TEST_F(ServerTest, H001_a_message_that_is_never_completed_closes_the_connection) {
  const Bytes header = bytes_of(empty_frame(3));
  peer.send(std::span(header).first(5));
  EXPECT_TRUE(peer.closed());
  EXPECT_THAT(end().to_string(), HasSubstr("did not come in time"));
}

TEST_F(ServerTest, H004_H005_a_payload_larger_than_any_is_refused_before_it_is_read) {
  for (const uint32_t size : {uint32_t{max_payload} + 1, 0xffffffffU}) {
    auto [raw, connection] = make_pair();
    raw.send(bytes_of(Frame{.header = {.request = 5, .size = size}}));
    auto frame = connection->receive();
    ASSERT_FALSE(frame);
    EXPECT_EQ(frame.error().fault, Fault::violation);
    EXPECT_EQ(frame.error().value, size);
  }
}

TEST_F(ServerTest, N002_other_versions_are_refused) {
  for (const uint32_t flags : {0U, 2U, 3U}) {
    auto [raw, connection] = make_pair();
    raw.send(empty_frame(1, flags));
    EXPECT_FALSE(connection->receive());
  }
}

TEST_F(ServerTest, H010_a_reply_where_a_request_is_due_closes_the_connection) {
  peer.send(u64_frame(1, version | reply_flag, 0));
  EXPECT_TRUE(peer.closed());
}

TEST_F(ServerTest, H011_undefined_flags_are_ignored_and_not_sent_back) {
  negotiate();
  const Frame reply = peer.ask(empty_frame(3, 0xfffffff0U | version | need_reply_flag));
  EXPECT_EQ(reply.header.flags, version | reply_flag);
}

TEST_F(ServerTest, H013_unknown_messages_are_refused_with_need_reply_and_close_without) {
  negotiate();
  for (const uint32_t id : {0U, 46U, 0x7fffffffU, 0xffffffffU}) {
    const Frame reply = peer.ask(empty_frame(id, version | need_reply_flag));
    EXPECT_EQ(reply.header.request, id);
    EXPECT_EQ(u64_of(reply), 1U);
  }
  peer.send(empty_frame(46));
  EXPECT_TRUE(peer.closed());
}

TEST_F(ServerTest, H014_a_peer_that_leaves_in_the_middle_of_a_message_leaves_nothing_behind) {
  auto files = some_fds(2);
  const size_t before = open_fds();
  const Bytes bytes = from_hex("05000000 01000000 48000000 02000000");
  peer.send(bytes, files);
  peer.close();
  EXPECT_EQ(end().fault, Fault::gone);
  EXPECT_EQ(open_fds(), before - 2);  // both ends of the socket
}

TEST_F(ServerTest, H016_two_messages_in_one_send_keep_their_order) {
  negotiate();
  Bytes both = bytes_of(empty_frame(1));
  const Bytes second = bytes_of(empty_frame(17));
  both.insert(both.end(), second.begin(), second.end());
  peer.send(both);
  EXPECT_EQ(peer.receive().header.request, 1U);
  EXPECT_EQ(peer.receive().header.request, 17U);
}

TEST_F(ServerTest, H016_pipelined_messages_keep_their_own_fds) {
  negotiate();
  std::vector<ino_t> seen;
  device.hook = [&](DeviceRequest& request) {
    struct stat status{};
    if (auto* kick = std::get_if<SetVringKick>(&request);
        kick != nullptr && ::fstat(kick->fd.get(), &status) == 0) {
      seen.push_back(status.st_ino);
    }
  };
  std::vector<ino_t> sent;
  for (uint32_t ring = 0; ring < 3; ++ring) {
    UniqueFd file(::memfd_create("kick", MFD_CLOEXEC));
    struct stat status{};
    ::fstat(file.get(), &status);
    sent.push_back(status.st_ino);
    Frame frame = u64_frame(12, version, ring);
    frame.fds.push_back(std::move(file));
    peer.send(frame);
  }
  barrier();
  EXPECT_EQ(seen, sent);
}

TEST_F(ServerTest, H017_ten_thousand_requests_whose_replies_are_not_read_do_not_take_memory_or_lose_any) {
  negotiate();
  std::thread sender([&] {
    for (int i = 0; i < 10'000; ++i) peer.send(empty_frame(1));
  });
  std::this_thread::sleep_for(50ms);
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(peer.receive().header.request, 1U);
  sender.join();
}

TEST_F(ServerTest, H019_a_file_that_comes_with_the_payload_is_closed_and_refused) {
  negotiate();
  const Bytes bytes = bytes_of(u64_frame(12, version | need_reply_flag, 1));
  auto files = some_fds(1);
  const size_t before = open_fds();
  peer.send(std::span(bytes).first(12));
  peer.send(std::span(bytes).subspan(12), files);
  EXPECT_EQ(u64_of(peer.receive()), 1U);
  EXPECT_EQ(open_fds(), before);
  EXPECT_FALSE(device.saw("SET_VRING_KICK"));
}

TEST_F(ServerTest, H023_two_hundred_and_fifty_three_files_on_every_message_are_closed) {
  negotiate();
  auto files = some_fds(253);
  const size_t before = open_fds();
  for (const Message& message : messages<DeviceRequest>) {
    if (message.reply == Reply::value) continue;
    Frame frame = empty_frame(message.id, version | need_reply_flag);
    frame.payload.resize(size_rule(message.request).min);
    frame.header.size = static_cast<uint32_t>(frame.payload.size());
    peer.send(bytes_of(frame), files);
    const Frame reply = peer.receive();
    EXPECT_EQ(reply.header.request, message.id);
    EXPECT_EQ(open_fds(), before) << message_name<DeviceRequest>(message.id);
  }
}

TEST_F(ServerTest, H043_stop_ends_a_connection_in_the_middle_of_a_message) {
  auto stop = Stop::make();
  ASSERT_TRUE(stop);
  auto [raw, connection] = make_pair({.stop = *stop, .message_time_out = 60s});
  auto ended =
      std::async(std::launch::async, [&, c = connection] { return DeviceServer(c, device).serve(); });
  const Bytes bytes = bytes_of(empty_frame(3));
  raw.send(std::span(bytes).first(7));
  (*stop)->request();
  ASSERT_EQ(ended.wait_for(1s), std::future_status::ready);
  EXPECT_EQ(ended.get().fault, Fault::gone);
}

TEST_F(ServerTest, H043_stop_ends_a_connection_that_cannot_send) {
  auto stop = Stop::make();
  ASSERT_TRUE(stop);
  auto [raw, connection] = make_pair({.stop = *stop});
  auto ended =
      std::async(std::launch::async, [&, c = connection] { return DeviceServer(c, device).serve(); });
  std::thread sender([&raw] {
    const Bytes bytes = bytes_of(empty_frame(1));
    while (::send(raw.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  std::this_thread::sleep_for(100ms);
  (*stop)->request();
  ASSERT_EQ(ended.wait_for(1s), std::future_status::ready);
  connection.reset();
  sender.join();
}

// ---- the back-end channel

class BackChannelTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    device.hook = [this](DeviceRequest& request) {
      if (auto* set = std::get_if<SetFrontEnd>(&request)) front_end = set->front_end;
    };
    auto ends = socket_pair();
    channel = Peer(std::move((*ends)[0]));
    far_end = std::move((*ends)[1]);
  }
  void hand_over(UniqueFd fd) {
    Frame frame = empty_frame(21);
    frame.fds.push_back(std::move(fd));
    peer.send(frame);
    barrier();
  }
  std::shared_ptr<FrontEnd> front_end;
  Peer channel;
  UniqueFd far_end;
};

TEST_F(BackChannelTest, N075_the_device_asks_its_front_end_over_the_socket_that_came) {
  negotiate();
  hand_over(std::move(far_end));
  ASSERT_NE(front_end, nullptr);
  auto asked = std::async(std::launch::async, [&] { return call(*front_end, ConfigChange{}); });
  const Frame request = channel.receive();
  EXPECT_EQ(request.header, (Header{.request = 2, .flags = version | need_reply_flag, .size = 0}));
  channel.send(u64_frame(2, version | reply_flag, 0));
  EXPECT_TRUE(asked.get());
}

TEST_F(BackChannelTest, a_refusal_of_the_front_end_reaches_the_device) {
  negotiate();
  hand_over(std::move(far_end));
  auto asked = std::async(std::launch::async, [&] { return call(*front_end, VringErr{3}); });
  EXPECT_EQ(channel.receive().header.request, 5U);
  channel.send(u64_frame(5, version | reply_flag, 1));
  const auto result = asked.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().fault, Fault::refused);
}

TEST_F(BackChannelTest, without_REPLY_ACK_a_request_to_the_front_end_returns_when_it_is_sent) {
  negotiate(every_protocol_feature & ~bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) &
            ~bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS));
  hand_over(std::move(far_end));
  EXPECT_TRUE(call(*front_end, ConfigChange{}));
  EXPECT_EQ(channel.receive().header.flags, version);
}

TEST_F(BackChannelTest, N074_nothing_is_sent_to_the_front_end_that_was_not_negotiated) {
  negotiate(transport_protocol_features, 0);
  hand_over(std::move(far_end));
  for (uint32_t id = 1; id <= 10; ++id) EXPECT_FALSE(front_end->handle(some_front_end_request(id)));
  EXPECT_FALSE(channel.readable(0ms));
}

TEST_F(BackChannelTest, files_are_sent_to_the_front_end_only_with_BACKEND_SEND_FD) {
  negotiate(every_protocol_feature & ~bit(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD));
  hand_over(std::move(far_end));
  EXPECT_FALSE(front_end->handle(some_front_end_request(9)));
  EXPECT_FALSE(channel.readable(0ms));
}

TEST_F(BackChannelTest, the_end_of_the_session_ends_a_wait_for_the_front_end) {
  negotiate();
  hand_over(std::move(far_end));
  auto asked = std::async(std::launch::async, [&] { return call(*front_end, ConfigChange{}); });
  channel.receive();
  peer.close();
  ASSERT_EQ(asked.wait_for(2s), std::future_status::ready);
  EXPECT_EQ(asked.get().error().fault, Fault::gone);
}

TEST_F(BackChannelTest, H037_a_pipe_can_be_written_to_but_not_waited_on) {
  negotiate();
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  hand_over(UniqueFd(ends[1]));
  ASSERT_NE(front_end, nullptr);
  EXPECT_TRUE(call(*front_end, ConfigChange{}));
  Bytes bytes(12);
  ASSERT_EQ(::read(reader.get(), bytes.data(), bytes.size()), 12);
  EXPECT_EQ(to_hex(bytes), "02000000 01000000 00000000");
  EXPECT_FALSE(call(*front_end, SharedObjectLookup{}));  // needs a reply
}

TEST_F(BackChannelTest, H037_a_pipe_whose_reader_has_left_disables_the_channel_and_nothing_else) {
  negotiate();
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  hand_over(UniqueFd(ends[1]));
  ::close(ends[0]);
  EXPECT_EQ(call(*front_end, ConfigChange{}).error().fault, Fault::gone);
  barrier();
}

TEST_F(BackChannelTest, H037_other_kinds_of_files_are_refused) {
  negotiate();
  const auto refuses = [&](UniqueFd fd) {
    Frame frame = empty_frame(21, version | need_reply_flag);
    frame.fds.push_back(std::move(fd));
    return u64_of(peer.ask(frame)) == 1;
  };
  EXPECT_TRUE(refuses(UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))));
  EXPECT_TRUE(refuses(UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0))));
  EXPECT_TRUE(refuses(UniqueFd(::memfd_create("file", MFD_CLOEXEC))));
  EXPECT_TRUE(refuses(some_fd()));
  EXPECT_EQ(front_end, nullptr);
}

TEST_F(BackChannelTest, back_end_channels_that_are_replaced_do_not_pile_up) {
  negotiate();
  hand_over(std::move(far_end));
  const size_t before = open_fds();
  for (int i = 0; i < 50; ++i) {
    auto ends = socket_pair();
    hand_over(std::move((*ends)[1]));
  }
  EXPECT_EQ(open_fds(), before);
}

// ---- the same server, for what a device asks of its front-end

class FrontEndServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    negotiated.set_capabilities(every_protocol_feature);
    negotiated.set_features(every_feature);
    auto [raw, connection] = make_pair();
    peer = std::move(raw);
    served = std::async(std::launch::async, [this, ours = std::move(connection)] {
      return Server<FrontEndRequest>(ours, front_end, negotiated).serve();
    });
  }
  void TearDown() override {
    peer.close();
    served.get();
  }
  Frame ask_good(uint32_t id) {
    auto frame = encode<FrontEndRequest>(some_front_end_request(id));
    EXPECT_TRUE(frame);
    frame->header.flags |= need_reply_flag;
    return peer.ask(*frame);
  }
  Negotiated negotiated;
  RecordingFrontEnd front_end;
  Peer peer;
  std::future<Error> served;
};

TEST_F(FrontEndServerTest, every_good_message_is_answered_once) {
  for (uint32_t id = 1; id <= 10; ++id) {
    const Frame reply = ask_good(id);
    EXPECT_EQ(reply.header, (Header{.request = id, .flags = version | reply_flag, .size = 8}));
    EXPECT_EQ(u64_of(reply), 0U);
    EXPECT_EQ(reply.fds.size(), id == 8 ? 1U : 0U);
    EXPECT_FALSE(peer.readable(0ms));
  }
}

TEST_F(FrontEndServerTest, every_refused_message_is_answered_by_a_failure) {
  front_end.failure = refused("no").error();
  for (uint32_t id = 1; id <= 10; ++id) {
    const Frame reply = ask_good(id);
    EXPECT_EQ(u64_of(reply), 1U);
    EXPECT_TRUE(reply.fds.empty());
  }
}

TEST_F(FrontEndServerTest, H343_what_was_not_negotiated_is_refused) {
  negotiated.set_capabilities(bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  negotiated.set_features(0);
  for (uint32_t id = 1; id <= 10; ++id) EXPECT_EQ(u64_of(ask_good(id)), 1U);
  EXPECT_TRUE(front_end.names().empty());
}

TEST_F(FrontEndServerTest, H344_a_flood_of_IOTLB_messages_is_answered_one_by_one_and_nonsense_refused) {
  auto frame = encode<FrontEndRequest>(some_front_end_request(1));
  ASSERT_TRUE(frame);
  frame->header.flags |= need_reply_flag;
  std::thread flood([&] {
    for (int i = 0; i < 10'000; ++i) peer.send(*frame);
  });
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(u64_of(peer.receive()), 0U) << i;
  flood.join();
  EXPECT_EQ(front_end.names().size(), 10'000U);
  constexpr size_t type_at = 25;
  for (const int type : {0, 2, 3, 5, 6, 255}) {  // update, invalidate, batches and what is none
    frame->payload.at(type_at) = static_cast<std::byte>(type);
    EXPECT_EQ(u64_of(peer.ask(*frame)), 1U) << type;
  }
  EXPECT_EQ(front_end.names().size(), 10'000U);
}

TEST_F(FrontEndServerTest, N076_H347_nine_files_are_refused_and_closed) {
  auto files = some_fds(9);
  const size_t before = open_fds();
  Frame frame = empty_frame(9, version | need_reply_flag);
  frame.payload.resize(40);
  frame.header.size = 40;
  peer.send(bytes_of(frame), files);
  EXPECT_EQ(u64_of(peer.receive()), 1U);
  EXPECT_EQ(open_fds(), before);
}

}  // namespace
}  // namespace ringway::user
