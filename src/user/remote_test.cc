#include "ringway/user/remote.h"

#include <gmock/gmock.h>

#include "ringway/user/peer_test.h"
#include "ringway/user/server.h"

namespace ringway::user {
namespace {

using namespace testing;
using namespace vhost;
using ::testing::HasSubstr;

// ---- against a back-end that the test plays

class RemoteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto [raw, connection] = make_pair({.message_time_out = 200ms});
    peer = std::move(raw);
    remote = std::make_unique<RemoteDevice>(std::move(connection), 300ms);
  }
  template <class T>
  std::future<Result<typename T::Reply>> ask(T request) {
    return std::async(std::launch::async,
                      [this, r = std::move(request)]() mutable { return call(*remote, std::move(r)); });
  }
  // Negotiates as the back-end that offers these.
  void negotiate(uint64_t features, uint64_t capabilities) {
    auto set = ask(SetProtocolFeatures{{capabilities & ~transport_protocol_features}});
    EXPECT_EQ(peer.receive().header, (Header{.request = 1}));
    peer.send(u64_frame(1, version | reply_flag, features | bit(30)));
    EXPECT_EQ(peer.receive().header, (Header{.request = 15}));
    peer.send(u64_frame(15, version | reply_flag, capabilities));
    const Frame given = peer.receive();
    EXPECT_EQ(given.header, (Header{.request = 16, .size = 8})) << "REPLY_ACK is not negotiated yet";
    EXPECT_EQ(u64_of(given), capabilities);
    EXPECT_TRUE(set.get());
    auto features_set = ask(SetFeatures{features | bit(30)});
    const bool acknowledged = (capabilities & bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)) != 0;
    EXPECT_EQ(u64_of(peer.receive()), features | bit(30));
    if (acknowledged) peer.send(u64_frame(2, version | reply_flag, 0));
    EXPECT_TRUE(features_set.get());
  }
  void negotiate_everything() { negotiate(every_feature, known_protocol_features); }

  // What comes of GET_VRING_BASE if the back-end answers by `reply`.
  Result<RingState> answered_by(const Bytes& reply, size_t fds = 0) {
    auto asked = ask(GetVringBase{3});
    peer.receive();
    auto files = some_fds(fds);
    peer.send(reply, files);
    return asked.get();
  }

  Peer peer;
  std::unique_ptr<RemoteDevice> remote;
};

TEST_F(RemoteTest, bit_30_and_the_sockets_features_are_not_shown) {
  auto features = ask(GetFeatures{});
  peer.receive();
  peer.send(u64_frame(1, 5, 0x7 | bit(30)));
  EXPECT_EQ(features.get(), 0x7U);
  auto capabilities = ask(GetProtocolFeatures{});
  peer.receive();
  peer.send(u64_frame(15, 5, bit(VHOST_USER_PROTOCOL_F_CONFIG) | transport_protocol_features));
  EXPECT_EQ(capabilities.get()->bits, bit(VHOST_USER_PROTOCOL_F_CONFIG));
}

TEST_F(RemoteTest, H332_unknown_protocol_features_are_ignored) {
  auto capabilities = ask(GetProtocolFeatures{});
  peer.receive();
  peer.send(u64_frame(1, 5, ~uint64_t{0}));
  peer.receive();
  peer.send(u64_frame(15, 5, ~uint64_t{0}));
  EXPECT_EQ(capabilities.get()->bits, known_protocol_features & ~transport_protocol_features);
}

TEST_F(RemoteTest, N028_a_back_end_without_bit_30_is_asked_nothing_about_protocol_features) {
  auto features = ask(GetFeatures{});
  peer.receive();
  peer.send(u64_frame(1, 5, 0x7));
  EXPECT_EQ(features.get(), 0x7U);
  EXPECT_EQ(call(*remote, GetProtocolFeatures{})->bits, 0U);
  EXPECT_TRUE(call(*remote, SetProtocolFeatures{}));
  EXPECT_FALSE(call(*remote, SetProtocolFeatures{{1}}));
  EXPECT_TRUE(call(*remote, SetFeatures{0x7 | bit(30)}));
  EXPECT_EQ(u64_of(peer.receive()), 0x7U) << "bit 30 was not offered";
  EXPECT_TRUE(call(*remote, SetVringEnable{0, 1})) << "rings are enabled as they start";
  EXPECT_FALSE(call(*remote, SetVringEnable{0, 0}));
  EXPECT_FALSE(call(*remote, GetQueueNum{}));
  EXPECT_FALSE(peer.readable(0ms));
}

TEST_F(RemoteTest, N027_nothing_is_sent_that_was_not_negotiated) {
  negotiate(0, transport_protocol_features);
  for (uint32_t id = 1; id <= 45; ++id) {
    if (catalogue<DeviceRequest>[id - 1].need.kind == Need::Kind::nothing || id == 21) continue;
    EXPECT_FALSE(remote->handle(some_device_request(id))) << message_name<DeviceRequest>(id);
  }
  EXPECT_FALSE(call(*remote, GetQueueNum{}));
  EXPECT_FALSE(peer.readable(0ms));
}

TEST_F(RemoteTest, with_REPLY_ACK_every_request_waits_for_its_result) {
  negotiate_everything();
  auto asked = ask(SetVringNum{3, 128});
  EXPECT_EQ(peer.receive().header, (Header{.request = 8, .flags = version | need_reply_flag, .size = 8}));
  EXPECT_EQ(asked.wait_for(20ms), std::future_status::timeout);
  peer.send(u64_frame(8, 5, 0));
  EXPECT_TRUE(asked.get());
}

TEST_F(RemoteTest, a_failure_is_an_error_about_the_message_and_the_connection_stays) {
  negotiate_everything();
  auto asked = ask(SetVringNum{3, 128});
  peer.receive();
  peer.send(u64_frame(8, 5, 22));
  const auto result = asked.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().fault, Fault::refused);
  EXPECT_THAT(result.error().to_string(), HasSubstr("SET_VRING_NUM: the peer refused it (22"));
  auto again = ask(SetOwner{});
  peer.receive();
  peer.send(u64_frame(3, 5, 0));
  EXPECT_TRUE(again.get());
}

TEST_F(RemoteTest, messages_with_their_own_reply_do_not_ask_for_another) {
  negotiate_everything();
  auto asked = ask(GetVringBase{3});
  EXPECT_EQ(peer.receive().header.flags, version);
  peer.send(state_frame(11, 5, 3, 9));
  EXPECT_EQ(asked.get()->value, 9U);
}

TEST_F(RemoteTest, without_REPLY_ACK_a_request_returns_when_it_is_sent) {
  negotiate(0, 0);
  EXPECT_TRUE(call(*remote, SetVringNum{3, 128}));
  EXPECT_EQ(peer.receive().header.flags, version);
}

TEST_F(RemoteTest, an_IOTLB_message_waits_for_its_status_even_without_REPLY_ACK) {
  negotiate(every_feature, 0);
  auto asked = ask(UpdateIotlb{});
  peer.receive();
  peer.send(u64_frame(22, 5, 1));
  EXPECT_EQ(asked.get().error().fault, Fault::refused);
}

// libvhost-user answers the log's size, and the specification nothing.
TEST_F(RemoteTest, N094_whatever_the_reply_to_a_log_base_says_the_log_is_set) {
  negotiate(0, bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD) | bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  for (const Frame& reply : {u64_frame(6, 5, 0), u64_frame(6, 5, 4096), empty_frame(6, 5)}) {
    auto asked = ask(SetLogBase{.size = 4096, .fd = some_fd()});
    EXPECT_FALSE(peer.receive().header.needs_reply()) << "it changes nothing where a reply is due";
    peer.send(reply);
    EXPECT_TRUE(asked.get());
  }
}

TEST_F(RemoteTest, a_log_base_that_is_only_acknowledged_can_be_refused) {
  negotiate(0, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  auto asked = ask(SetLogBase{.offset = 4096});
  EXPECT_TRUE(peer.receive().header.needs_reply());
  peer.send(u64_frame(6, 5, 1));
  EXPECT_EQ(asked.get().error().fault, Fault::refused);
}

TEST_F(RemoteTest, who_only_tells_asks_for_no_acknowledgement) {
  auto [raw, connection] = make_pair();
  auto negotiated = std::make_shared<Negotiated>();
  negotiated->set_capabilities(known_protocol_features);
  Remote<FrontEndRequest> front_end(std::move(connection), negotiated, nullptr, 300ms);
  EXPECT_TRUE(front_end.tell(ConfigChange{}));
  EXPECT_EQ(raw.receive().header.flags, version);
  EXPECT_FALSE(front_end.handle(ConfigChange{})) << "this one waits";
  EXPECT_EQ(raw.receive().header.flags, version | need_reply_flag);
}

TEST_F(RemoteTest, an_empty_config_reply_is_a_refusal) {
  negotiate_everything();
  auto asked = ask(GetConfig{.offset = 0, .size = 8});
  peer.receive();
  peer.send(empty_frame(24, 5));
  EXPECT_EQ(asked.get().error().fault, Fault::refused);
}

// ---- hostile replies

TEST_F(RemoteTest, H329_a_good_reply_is_accepted) {
  negotiate_everything();
  EXPECT_TRUE(answered_by(bytes_of(state_frame(11, 5, 3, 9))));
}

TEST_F(RemoteTest, H329_every_wrong_reply_closes_the_connection) {
  const std::vector<std::pair<const char*, Bytes>> bad = {
      {"another request", bytes_of(state_frame(10, 5, 3, 9))},
      {"unknown request", bytes_of(state_frame(99, 5, 3, 9))},
      {"no reply bit", bytes_of(state_frame(11, 1, 3, 9))},
      {"version 0", bytes_of(state_frame(11, 4, 3, 9))},
      {"version 2", bytes_of(state_frame(11, 6, 3, 9))},
      {"empty", bytes_of(empty_frame(11, 5))},
      {"too short", from_hex("0b000000 05000000 04000000 03000000")},
      {"too long", from_hex("0b000000 05000000 0c000000 03000000 09000000 00000000")},
      {"huge", from_hex("0b000000 05000000 ffffffff")},
      {"another ring", bytes_of(state_frame(11, 5, 4, 9))},
      {"half a header", from_hex("0b000000 0500")},
      {"half a payload", from_hex("0b000000 05000000 08000000 0300")},
  };
  for (const auto& [what, reply] : bad) {
    SCOPED_TRACE(what);
    SetUp();
    negotiate_everything();
    const auto result = answered_by(reply);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().fault, Fault::violation);
    EXPECT_TRUE(peer.closed());
    EXPECT_EQ(call(*remote, SetOwner{}).error().fault, Fault::gone);
  }
}

TEST_F(RemoteTest, H329_a_reply_that_never_comes_is_waited_for_a_bounded_time) {
  negotiate_everything();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(call(*remote, GetVringBase{3}).error().fault, Fault::violation);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 1s);
  EXPECT_TRUE(peer.receive().header.request == 11 && peer.closed());
}

TEST_F(RemoteTest, H329_a_reply_that_comes_twice_is_taken_for_no_other) {
  negotiate_everything();
  EXPECT_TRUE(answered_by(bytes_of(state_frame(11, 5, 3, 9))));
  peer.send(state_frame(11, 5, 3, 9));
  EXPECT_EQ(call(*remote, GetQueueNum{}).error().fault, Fault::violation);
}

TEST_F(RemoteTest, H331_files_with_a_reply_are_closed) {
  for (const size_t count : {1, 8, 9, 253}) {
    SetUp();
    negotiate_everything();
    const size_t before = open_fds();
    EXPECT_FALSE(answered_by(bytes_of(state_frame(11, 5, 3, 9)), count));
    EXPECT_EQ(open_fds(), before);
  }
}

TEST_F(RemoteTest, H349_a_back_end_that_leaves_ends_the_wait) {
  negotiate_everything();
  auto asked = ask(GetVringBase{3});
  peer.receive();
  peer.close();
  EXPECT_EQ(asked.get().error().fault, Fault::gone);
}

TEST_F(RemoteTest, close_ends_the_wait) {
  negotiate_everything();
  auto asked = ask(GetVringBase{3});
  peer.receive();
  remote->close();
  EXPECT_EQ(asked.get().error().fault, Fault::gone);
}

TEST_F(RemoteTest, after_an_error_nothing_is_answered_from_memory) {
  auto asked = ask(GetFeatures{});
  peer.receive();
  peer.send(u64_frame(1, version | reply_flag, 0));
  ASSERT_TRUE(asked.get());
  ASSERT_TRUE(call(*remote, SetProtocolFeatures{})) << "without bit 30 there is nobody to ask";
  EXPECT_EQ(answered_by({}).error().fault, Fault::violation);
  EXPECT_EQ(call(*remote, SetProtocolFeatures{}).error().fault, Fault::gone);
  EXPECT_EQ(call(*remote, SetVringEnable{.ring = 0, .enable = 1}).error().fault, Fault::gone);
}

TEST_F(RemoteTest, files_of_a_request_are_closed_when_it_is_sent) {
  negotiate_everything();
  const size_t before = open_fds();
  auto asked = ask(SetVringKick{.ring = 1, .fd = some_fd()});
  EXPECT_EQ(peer.receive().fds.size(), 1U);
  peer.send(u64_frame(12, 5, 0));
  EXPECT_TRUE(asked.get());
  EXPECT_EQ(open_fds(), before);
}

TEST_F(RemoteTest, in_postcopy_memory_is_answered_by_addresses_and_no_acknowledgement_is_asked_for) {
  negotiate_everything();
  auto listening = ask(PostcopyListen{});
  EXPECT_TRUE(peer.receive().header.needs_reply());
  peer.send(u64_frame(29, 5, 0));
  ASSERT_TRUE(listening.get());
  auto asked = std::async(std::launch::async, [&] { return remote->handle(some_device_request(5)); });
  Frame table = peer.receive();
  EXPECT_FALSE(table.header.needs_reply());
  table.header.flags = 5;
  table.fds.clear();
  peer.send(table);
  auto reply = asked.get();
  ASSERT_TRUE(reply);
  EXPECT_EQ(std::get<MemoryTable>(*reply).regions.size(), 2U);
}

// ---- both halves, and chains of them

// A device behind one socket, or behind a proxy: Server over Remote over Server.
class ChainTest : public ::testing::TestWithParam<int> {
 protected:
  struct Hop {
    std::unique_ptr<RemoteDevice> remote;
    std::future<Error> served;
  };

  void SetUp() override {
    device.features = every_feature & ~bit(30);
    device.capabilities = known_protocol_features & ~transport_protocol_features;
    Device* next = &device;
    for (int i = 0; i < GetParam(); ++i) next = add_hop(*next);
    front = next;
  }
  void TearDown() override {
    while (!hops.empty()) {
      hops.back().remote.reset();
      hops.back().served.get();
      hops.pop_back();
    }
  }
  Device* add_hop(Device& next) {
    auto ends = socket_pair();
    auto near = Connection::adopt(std::move((*ends)[0]));
    auto far = Connection::adopt(std::move((*ends)[1]));
    hops.push_back({.remote = std::make_unique<RemoteDevice>(*near, 2000ms),
                    .served = std::async(std::launch::async,
                                         [far, &next] { return DeviceServer(*far, next).serve(); })});
    return hops.back().remote.get();
  }
  void negotiate() {
    ASSERT_TRUE(call(*front, GetFeatures{}));
    auto capabilities = call(*front, GetProtocolFeatures{});
    ASSERT_TRUE(capabilities);
    ASSERT_TRUE(call(*front, SetProtocolFeatures{*capabilities}));
    ASSERT_TRUE(call(*front, SetFeatures{every_feature}));
  }

  RecordingDevice device;
  std::vector<Hop> hops;
  Device* front = nullptr;
};

TEST_P(ChainTest, every_request_arrives_and_every_reply_comes_back) {
  negotiate();
  for (uint32_t id = 1; id <= 45; ++id) {
    if (id == 2 || id == 16 || id == 29)
      continue;  // would end what was negotiated; or change how memory is answered
    SCOPED_TRACE(message_name<DeviceRequest>(id));
    const auto reply = front->handle(some_device_request(id));
    ASSERT_TRUE(reply) << reply.error().to_string();
    EXPECT_TRUE(device.saw(message_name<DeviceRequest>(id)));
  }
}

TEST_P(ChainTest, every_refusal_comes_back_as_one) {
  negotiate();
  device.failure = refused("no").error();
  for (const Message& message : messages<DeviceRequest>) {
    if (message.reply == Reply::value || message.id == 1 || message.id == 15) continue;
    if (message.id == 6) continue;  // SET_LOG_BASE: what its reply says is not specified
    SCOPED_TRACE(message_name<DeviceRequest>(message.id));
    const auto reply = front->handle(some_device_request(message.id));
    if (message.id == 41) {
      ASSERT_TRUE(reply);
      EXPECT_FALSE(std::get<SharedObject>(*reply).fd);
    } else if (message.id == 42) {
      ASSERT_TRUE(reply);
      EXPECT_NE(std::get<StateChannel>(*reply).error, 0);
    } else if (message.id == 43) {
      ASSERT_TRUE(reply);
      EXPECT_NE(std::get<uint64_t>(*reply), 0U);
    } else {
      ASSERT_FALSE(reply);
      EXPECT_EQ(reply.error().fault, Fault::refused);
    }
  }
}

TEST_P(ChainTest, requests_of_the_device_reach_the_front_end_and_come_back) {
  negotiate();
  std::shared_ptr<FrontEnd> at_device;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) at_device = set->front_end;
  };
  auto front_end = std::make_shared<RecordingFrontEnd>();
  ASSERT_TRUE(call(*front, SetFrontEnd{front_end}));
  ASSERT_NE(at_device, nullptr);
  for (uint32_t id = 1; id <= 10; ++id) {
    SCOPED_TRACE(message_name<FrontEndRequest>(id));
    const auto reply = at_device->handle(some_front_end_request(id));
    ASSERT_TRUE(reply) << reply.error().to_string();
    EXPECT_TRUE(front_end->saw(message_name<FrontEndRequest>(id)));
  }
  front_end->fail_with(refused("no").error());
  EXPECT_EQ(call(*at_device, ConfigChange{}).error().fault, Fault::refused);
}

TEST_P(ChainTest, a_device_may_ask_its_front_end_from_inside_any_request) {
  negotiate();
  std::shared_ptr<FrontEnd> at_device;
  auto front_end = std::make_shared<RecordingFrontEnd>();
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) at_device = set->front_end;
    EXPECT_TRUE(call(*at_device, ConfigChange{}));
  };
  ASSERT_TRUE(call(*front, SetFrontEnd{front_end}));
  for (uint32_t id = 3; id <= 14; ++id) ASSERT_TRUE(front->handle(some_device_request(id)));
  EXPECT_EQ(front_end->names().size(), 13U);
}

TEST_P(ChainTest, a_front_end_may_ask_its_device_when_it_is_told_something) {
  negotiate();
  std::shared_ptr<FrontEnd> at_device;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) at_device = set->front_end;
  };
  auto front_end = std::make_shared<RecordingFrontEnd>();
  front_end->hook = [&](FrontEndRequest&) { EXPECT_TRUE(call(*front, GetConfig{.size = 8})); };
  ASSERT_TRUE(call(*front, SetFrontEnd{front_end}));
  EXPECT_TRUE(call(*at_device, ConfigChange{}));
  EXPECT_TRUE(device.saw("GET_CONFIG"));
}

TEST_P(ChainTest, a_front_end_that_is_refused_leaves_the_old_one_in_place) {
  negotiate();
  std::shared_ptr<FrontEnd> at_device;
  device.hook = [&](DeviceRequest& request) {
    auto* set = std::get_if<SetFrontEnd>(&request);
    if (set != nullptr && !device.failure) at_device = set->front_end;
  };
  auto old_one = std::make_shared<RecordingFrontEnd>();
  ASSERT_TRUE(call(*front, SetFrontEnd{old_one}));
  device.failure = refused("no").error();
  EXPECT_FALSE(call(*front, SetFrontEnd{std::make_shared<RecordingFrontEnd>()}));
  device.failure.reset();
  EXPECT_TRUE(call(*at_device, ConfigChange{}));
  EXPECT_TRUE(old_one->saw("BACKEND_CONFIG_CHANGE_MSG"));
}

TEST_P(ChainTest, front_ends_that_are_replaced_do_not_pile_up) {
  negotiate();
  const auto set_one = [&] { ASSERT_TRUE(call(*front, SetFrontEnd{std::make_shared<RecordingFrontEnd>()})); };
  for (int i = 0; i < 10; ++i) set_one();
  const size_t before = open_fds();
  for (int i = 0; i < 50; ++i) set_one();
  std::this_thread::sleep_for(20ms);
  set_one();
  EXPECT_LE(open_fds(), before + 10);
}

TEST_P(ChainTest, files_arrive_as_the_same_files) {
  negotiate();
  UniqueFd file(::memfd_create("memory", MFD_CLOEXEC));
  struct stat sent{};
  struct stat arrived{};
  ::fstat(file.get(), &sent);
  device.hook = [&](DeviceRequest& request) {
    if (auto* add = std::get_if<AddMemReg>(&request)) ::fstat(add->region.fd.get(), &arrived);
  };
  ASSERT_TRUE(call(*front, AddMemReg{{.layout = some_layout(), .fd = std::move(file)}}));
  EXPECT_EQ(sent.st_ino, arrived.st_ino);
}

TEST_P(ChainTest, many_threads_may_ask_at_once) {
  negotiate();
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint32_t i = 0; i < 100; ++i) {
        const auto config = call(*front, GetConfig{.offset = t * 8 + i % 8, .size = 4 + t});
        ASSERT_TRUE(config);
        ASSERT_EQ(config->offset, t * 8 + i % 8);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(behind_a_socket_and_behind_proxies, ChainTest, ::testing::Values(1, 2, 3));

}  // namespace
}  // namespace ringway::user
