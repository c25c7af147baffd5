// What a driver orders, and what becomes of it. The numbers are those of docs/robustness.md.
#include "ringway/device/net/control.h"

#include <map>

#include "ringway/device/net/rig_test.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification
using namespace test;  // NOLINT(google-build-using-namespace)

constexpr uint64_t controlled =
    bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) |
    bit(VIRTIO_NET_F_CTRL_RX_EXTRA) | bit(VIRTIO_NET_F_CTRL_VLAN) | bit(VIRTIO_NET_F_CTRL_MAC_ADDR) |
    bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | bit(VIRTIO_NET_F_GUEST_ANNOUNCE) | receive_offloads;
constexpr uint64_t many =
    controlled | bit(VIRTIO_NET_F_MQ) | bit(VIRTIO_NET_F_RSS) | bit(VIRTIO_NET_F_HASH_REPORT);
constexpr int ok = VIRTIO_NET_OK;
constexpr int error = VIRTIO_NET_ERR;

Bytes le(uint64_t value, size_t bytes) {
  Bytes all = as_bytes(value);
  all.resize(bytes);
  return all;
}
Bytes command(uint8_t group, uint8_t what) { return {std::byte{group}, std::byte{what}}; }

class NetControl : public NetTest {
 protected:
  // VIRTIO_NET_OK, VIRTIO_NET_ERR, or -1: no answer was written.
  int order(const Bytes& bytes, uint32_t cut = UINT32_MAX, uint32_t room = 1) {
    control().add_readable(bytes, cut, room);
    const auto used = control().take();
    EXPECT_TRUE(used) << "the command did not come back";
    if (!used || used->empty()) return -1;
    EXPECT_EQ(used->size(), 1U);
    return std::to_integer<int>(used->front());
  }
  // A frame to this address; with a VLAN tag if it is not negative.
  static Bytes frame_to(std::initializer_list<int> mac, int vlan = -1) {
    Bytes frame;
    for (const int byte : mac) frame.push_back(static_cast<std::byte>(byte));
    frame.resize(12);
    if (vlan >= 0)
      frame = frame + Bytes{std::byte{0x81}, std::byte{0}, static_cast<std::byte>(vlan >> 8U),
                            static_cast<std::byte>(vlan)};
    frame = frame + Bytes{std::byte{8}, std::byte{0}};
    frame.resize(64);
    return frame;
  }
  bool arrives(const Bytes& frame, uint16_t pair = 0) {
    receiver(pair).add_writable({200});
    EXPECT_TRUE(deliver(frame, {}, pair));
    const bool arrived = receiver(pair).take().has_value();
    if (!arrived) {
      loops_[0]->run([&] { receiver(pair).queue().drain(); });
    }
    return arrived;
  }
  static Bytes udp4(uint8_t last_of_source, uint16_t source_port) {
    Bytes frame = frame_to({2, 0, 0, 0, 0, 9});
    frame[14] = std::byte{0x45};
    frame[23] = std::byte{17};
    frame[29] = std::byte{last_of_source};
    frame[34] = static_cast<std::byte>(source_port >> 8U);
    frame[35] = static_cast<std::byte>(source_port);
    return frame;
  }
  // struct virtio_net_rss_config
  static Bytes rss(uint32_t types, const std::vector<uint16_t>& table, uint16_t unclassified = 0,
                   uint16_t transmitters = 1, const Bytes& key = Bytes(40, std::byte{0x5a})) {
    Bytes bytes = command(4, 1) + le(types, 4) + le(table.size() - 1, 2) + le(unclassified, 2);
    for (const uint16_t pair : table) bytes = bytes + le(pair, 2);
    return bytes + le(transmitters, 2) + le(key.size(), 1) + key;
  }
};

TEST_F(NetControl, until_the_driver_says_otherwise_it_sees_everything) {
  open(controlled);
  EXPECT_TRUE(arrives(frame_to({2, 9, 9, 9, 9, 9})));
  EXPECT_TRUE(arrives(frame_to({1, 9, 9, 9, 9, 9})));
  EXPECT_TRUE(arrives(frame_to({2, 9, 9, 9, 9, 9}, 77)));
}

TEST_F(NetControl, receive_modes_say_what_passes) {
  open(controlled);
  const Bytes to_me = frame_to({2, 1, 2, 3, 4, 5});
  const Bytes to_other = frame_to({2, 9, 9, 9, 9, 9});
  const Bytes to_group = frame_to({1, 0, 0x5e, 0, 0, 1});
  const Bytes to_all = frame_to({255, 255, 255, 255, 255, 255});
  const auto set = [&](uint8_t mode, uint8_t on) { EXPECT_EQ(order(command(0, mode) + le(on, 1)), ok); };
  const auto pass = [&] {
    return std::string() + (arrives(to_me) ? "m" : "-") + (arrives(to_other) ? "o" : "-") +
           (arrives(to_group) ? "g" : "-") + (arrives(to_all) ? "a" : "-");
  };
  EXPECT_EQ(pass(), "moga");
  set(0, 0);
  EXPECT_EQ(pass(), "m--a");
  set(1, 1);
  EXPECT_EQ(pass(), "m-ga");
  set(2, 1);
  EXPECT_EQ(pass(), "moga");
  set(3, 1);
  EXPECT_EQ(pass(), "mo-a");
  set(4, 1);
  EXPECT_EQ(pass(), "---a");
  set(5, 1);
  EXPECT_EQ(pass(), "----");
  set(0, 1);
  EXPECT_EQ(pass(), "moga") << "promiscuous again";
}

TEST_F(NetControl, addresses_of_the_tables_pass) {
  open(controlled);
  ASSERT_EQ(order(command(0, 0) + le(0, 1)), ok);
  const Bytes table =
      le(1, 4) + Bytes{std::byte{2}, std::byte{7}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{1}} +
      le(1, 4) + Bytes{std::byte{1}, std::byte{0}, std::byte{0x5e}, std::byte{0}, std::byte{0}, std::byte{2}};
  ASSERT_EQ(order(command(1, 0) + table, 5), ok);
  EXPECT_TRUE(arrives(frame_to({2, 7, 0, 0, 0, 1})));
  EXPECT_FALSE(arrives(frame_to({2, 7, 0, 0, 0, 2})));
  EXPECT_TRUE(arrives(frame_to({1, 0, 0x5e, 0, 0, 2})));
  EXPECT_FALSE(arrives(frame_to({1, 0, 0x5e, 0, 0, 1})));
  EXPECT_EQ(order(command(1, 0) + le(0, 4) + le(0, 4)), ok);
  EXPECT_FALSE(arrives(frame_to({2, 7, 0, 0, 0, 1})));
}

TEST_F(NetControl, H235_of_tables_longer_than_the_device_keeps_all_pass_and_tables_that_are_cut_are_errors) {
  open(controlled);
  ASSERT_EQ(order(command(0, 0) + le(0, 1)), ok);
  EXPECT_EQ(order(command(1, 0) + le(65, 4) + Bytes(65 * 6) + le(0, 4)), ok);
  EXPECT_TRUE(arrives(frame_to({2, 9, 9, 9, 9, 9})));
  EXPECT_FALSE(arrives(frame_to({1, 9, 9, 9, 9, 9})));
  EXPECT_EQ(order(command(1, 0) + le(1'000'000, 4) + Bytes(6'000'000) + le(0, 4)), ok);
  for (const uint32_t claimed : {2U, 65U, 1'000'000U, 0xffffffffU, 0x2aaaaaabU}) {
    EXPECT_EQ(order(command(1, 0) + le(claimed, 4) + Bytes(11)), error) << claimed;
    EXPECT_EQ(order(command(1, 0) + le(0, 4) + le(claimed, 4) + Bytes(11)), error) << claimed;
  }
  EXPECT_TRUE(arrives(frame_to({2, 9, 9, 9, 9, 9}))) << "an error changes nothing";
}

TEST_F(NetControl, tagged_frames_pass_if_their_VLAN_was_added) {
  open(controlled);
  ASSERT_EQ(order(command(0, 0) + le(0, 1)), ok);
  const Bytes tagged = frame_to({2, 1, 2, 3, 4, 5}, 100);
  EXPECT_FALSE(arrives(tagged));
  EXPECT_TRUE(arrives(frame_to({2, 1, 2, 3, 4, 5})));
  EXPECT_EQ(order(command(2, 0) + le(100, 2)), ok);
  EXPECT_TRUE(arrives(tagged));
  EXPECT_FALSE(arrives(frame_to({2, 1, 2, 3, 4, 5}, 101)));
  EXPECT_EQ(order(command(2, 1) + le(100, 2)), ok);
  EXPECT_FALSE(arrives(tagged));
  for (const uint64_t vlan : {4096U, 0xffffU}) EXPECT_EQ(order(command(2, 0) + le(vlan, 2)), error);
  EXPECT_EQ(order(command(2, 2) + le(100, 2)), error);
}

TEST_F(NetControl, the_address_may_be_set_and_is_told_in_the_configuration) {
  open(controlled);
  const Bytes mac = {std::byte{2}, std::byte{7}, std::byte{7}, std::byte{7}, std::byte{7}, std::byte{7}};
  EXPECT_EQ(order(command(1, 1) + mac), ok);
  EXPECT_EQ(std::memcmp(config().mac.data(), mac.data(), 6), 0);
  ASSERT_EQ(order(command(0, 0) + le(0, 1)), ok);
  EXPECT_TRUE(arrives(frame_to({2, 7, 7, 7, 7, 7})));
  EXPECT_FALSE(arrives(frame_to({2, 1, 2, 3, 4, 5})));
  EXPECT_EQ(order(command(1, 1) + Bytes(6, std::byte{0xff})), error) << "the address of a group";
  EXPECT_EQ(order(command(1, 1) + Bytes(5)), error);
  net_->reset();
  EXPECT_EQ(config().mac, own);
}

TEST_F(NetControl, H232_commands_shorter_than_they_must_be_are_errors_however_they_are_cut) {
  open(many, 2);
  for (unsigned group = 0; group < 8; ++group) {
    for (unsigned what = 0; what < 8; ++what) {
      if (group == 3 && what == 0) continue;  // ANNOUNCE_ACK has no data
      EXPECT_EQ(order(command(static_cast<uint8_t>(group), static_cast<uint8_t>(what))), error)
          << group << what;
    }
  }
  EXPECT_EQ(order(Bytes(1)), error);
  const Bytes good = rss(1, {0, 1}, 0, 2);
  for (size_t length = 0; length < good.size(); ++length) {
    if (length == 0) continue;
    EXPECT_EQ(order(Bytes(good.begin(), good.begin() + static_cast<ptrdiff_t>(length)), 3), error) << length;
  }
  EXPECT_EQ(order(good, 1), ok);
}

TEST_F(NetControl, H232_a_command_without_room_for_its_answer_does_nothing_and_more_room_is_left_alone) {
  open(controlled);
  EXPECT_EQ(order(command(0, 0) + le(0, 1), UINT32_MAX, 0), -1);
  EXPECT_TRUE(arrives(frame_to({2, 9, 9, 9, 9, 9})));
  EXPECT_EQ(order(command(0, 0) + le(0, 1), UINT32_MAX, 2), ok);
  EXPECT_FALSE(arrives(frame_to({2, 9, 9, 9, 9, 9})));
}

TEST_F(NetControl, commands_that_were_not_negotiated_or_do_not_exist_are_errors) {
  open(modern | bit(VIRTIO_NET_F_CTRL_VQ));
  for (unsigned group = 0; group < 256; ++group) {
    for (unsigned what = 0; what < 6; ++what) {
      EXPECT_EQ(order(command(static_cast<uint8_t>(group), static_cast<uint8_t>(what)) + Bytes(64)), error)
          << group << " " << what;
    }
  }
}

TEST_F(NetControl, H233_the_number_of_pairs_is_bounded) {
  open(many, 4);
  EXPECT_EQ(port_->wishes_.pairs, 1U) << "until the driver says how many it uses";
  for (const uint64_t pairs : {0U, 5U, 128U, 0xffffU})
    EXPECT_EQ(order(command(4, 0) + le(pairs, 2)), error) << pairs;
  EXPECT_EQ(order(command(4, 0) + le(3, 2)), ok);
  EXPECT_EQ(port_->wishes_.pairs, 3U);
  open(controlled);
  EXPECT_EQ(order(command(4, 0) + le(1, 2)), error) << "without VIRTIO_NET_F_MQ";
}

TEST_F(NetControl, offloads_change_while_queues_run_but_only_to_what_was_negotiated) {
  open(controlled & ~bit(VIRTIO_NET_F_GUEST_UFO));
  const uint64_t all = receive_offloads & ~bit(VIRTIO_NET_F_GUEST_UFO);
  EXPECT_EQ(port_->wishes_.offloads, all);
  EXPECT_EQ(order(command(5, 0) + le(0, 8)), ok);
  EXPECT_EQ(port_->wishes_.offloads, 0U);
  receiver().add_writable({200});
  EXPECT_TRUE(deliver(frame_of(64), {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34}));
  EXPECT_EQ(dropped(Drop::unfinished), 1U);
  EXPECT_EQ(order(command(5, 0) + le(receive_offloads, 8)), error);
  EXPECT_EQ(order(command(5, 0) + le(uint64_t{1} << 63U, 8)), error);
  EXPECT_EQ(port_->wishes_.offloads, 0U);
  EXPECT_EQ(order(command(5, 0) + le(all, 8)), ok);
  EXPECT_EQ(port_->wishes_.offloads, all);
}

TEST_F(NetControl, CVE_2024_6505_a_table_names_only_pairs_that_exist) {
  open(many, 2);
  EXPECT_EQ(order(rss(1, {0, 1, 1, 0})), ok);
  EXPECT_EQ(order(rss(1, {0, 1, 2, 0})), error);
  EXPECT_EQ(order(rss(1, {0xffff})), error);
  EXPECT_EQ(order(rss(1, {0, 1}, 2)), error) << "unclassified";
  EXPECT_EQ(order(rss(1, {0, 1}, 0, 0)), error) << "no transmitter";
  EXPECT_EQ(order(rss(1, {0, 1}, 0, 3)), error) << "more transmitters than there are";
  EXPECT_EQ(order(rss(1, {0, 1, 0})), error) << "no power of two";
  EXPECT_EQ(order(rss(1, std::vector<uint16_t>(256))), error) << "longer than announced";
  EXPECT_EQ(order(rss(1, std::vector<uint16_t>(128))), ok);
  EXPECT_EQ(order(rss(0x40, {0, 1})), error) << "a type that was not announced";
  EXPECT_EQ(order(rss(1, {0, 1}, 0, 1, Bytes(41))), error) << "key";
  EXPECT_EQ(order(rss(1, {0, 1}, 0, 1, Bytes(0))), ok);
}

TEST_F(NetControl, frames_go_to_the_pair_that_their_hash_says_and_others_to_the_unclassified) {
  open(many, 4);
  ASSERT_EQ(order(rss(VIRTIO_NET_HASH_TYPE_UDPv4, {1, 2}, 3)), ok);
  for (uint16_t pair = 0; pair < 4; ++pair) {
    for (int i = 0; i < 60; ++i) receiver(pair).add_writable({200});
  }
  std::map<uint16_t, int> arrived;
  for (uint16_t flow = 0; flow < 50; ++flow) {
    ASSERT_TRUE(deliver(udp4(1, flow)));
    for (uint16_t pair = 0; pair < 4; ++pair) {
      if (receiver(pair).take()) ++arrived[pair];
    }
  }
  EXPECT_EQ(arrived[0] + arrived[3], 0);
  EXPECT_GT(arrived[1], 10);
  EXPECT_GT(arrived[2], 10);
  ASSERT_TRUE(deliver(frame_to({2, 1, 2, 3, 4, 5})));
  EXPECT_TRUE(receiver(3).take());
}

TEST_F(NetControl, frames_for_a_queue_of_another_worker_get_there_whole) {
  loops_.push_back(*loop::Loop::start({.use_io_uring = false}));
  open(many, 2);
  ASSERT_EQ(order(rss(0, {0}, 1)), ok);
  receiver(1).add_writable({20, 3000});
  Bytes frame = frame_of(2000);
  ASSERT_TRUE(deliver(frame));
  std::optional<Bytes> used;
  for (int i = 0; i < 1000 && !used; ++i) {
    receiver(1).worker().run([] {});
    used = receiver(1).take();
  }
  ASSERT_TRUE(used);
  EXPECT_EQ(Bytes(used->begin() + sizeof(Header), used->end()), frame);
}

TEST_F(NetControl, the_hash_is_reported_if_the_driver_has_asked_for_it) {
  open(controlled | bit(VIRTIO_NET_F_HASH_REPORT));
  const auto arrived = [&] {
    receiver().add_writable({200});
    EXPECT_TRUE(deliver(udp4(1, 5)));
    Header header;
    const auto used = receiver().take();
    EXPECT_TRUE(used);
    if (used) std::memcpy(static_cast<void*>(&header), used->data(), sizeof header);
    return header;
  };
  EXPECT_EQ(arrived().hash_report, VIRTIO_NET_HASH_REPORT_NONE);
  const Bytes key(40, std::byte{0x5a});
  const auto config = [&](uint32_t types) {
    return command(4, 2) + le(types, 4) + Bytes(8) + le(40, 1) + key;
  };
  EXPECT_EQ(order(config(VIRTIO_NET_HASH_TYPE_UDPv4)), ok);
  EXPECT_EQ(arrived().hash_report, VIRTIO_NET_HASH_REPORT_UDPv4);
  EXPECT_NE(arrived().hash_value, 0U);
  EXPECT_EQ(order(config(VIRTIO_NET_HASH_TYPE_IPv4)), ok);
  EXPECT_EQ(arrived().hash_report, VIRTIO_NET_HASH_REPORT_IPv4);
  EXPECT_EQ(order(config(0)), ok);
  EXPECT_EQ(arrived().hash_report, VIRTIO_NET_HASH_REPORT_NONE);
}

TEST_F(NetControl, a_device_with_more_pairs_than_its_port_spreads_by_itself) {
  prepare_ = [](TestPort& port) { port.abilities_.pairs = 1; };
  open(modern | bit(VIRTIO_NET_F_MQ), 2);
  int second = 0;
  for (uint16_t flow = 0; flow < 32; ++flow) {
    for (uint16_t pair = 0; pair < 2; ++pair) receiver(pair).add_writable({200});
    ASSERT_TRUE(deliver(udp4(1, flow)));
    for (uint16_t pair = 0; pair < 2; ++pair) {
      if (receiver(pair).take()) second += pair;
      loops_[0]->run([&] { receiver(pair).queue().drain(); });
    }
  }
  EXPECT_GT(second, 5);
  EXPECT_LT(second, 27);
}

TEST_F(NetControl, a_driver_says_when_it_wants_to_be_called_and_each_direction_obeys) {
  using std::chrono::microseconds;
  const auto calls = [](uint8_t what, uint32_t packets, uint32_t delay) {
    return command(6, what) + le(packets, 4) + le(delay, 4);
  };
  const auto use_both = [&] {
    EXPECT_TRUE(arrives(frame_of(64)));
    transmit(plain() + frame_of(64));
  };
  open(controlled | bit(VIRTIO_NET_F_NOTF_COAL));
  EXPECT_EQ(order(calls(0, 32, 100)), ok);
  use_both();
  EXPECT_EQ(transmitter().moderation_, (engine::CallModeration{.chains = 32, .delay = microseconds(100)}));
  EXPECT_EQ(receiver().moderation_, engine::CallModeration{});
  EXPECT_EQ(order(calls(1, 8, 1'000'000)), ok);
  use_both();
  EXPECT_EQ(receiver().moderation_, (engine::CallModeration{.chains = 8, .delay = microseconds(1'000'000)}));
  EXPECT_EQ(transmitter().moderation_.chains, 32U);
  EXPECT_EQ(order(calls(1, 8, 1'000'001)), error);
  EXPECT_EQ(order(calls(1, 8, UINT32_MAX)), error);
  EXPECT_EQ(order(calls(2, 8, 1)), error);
  EXPECT_EQ(order(command(6, 0) + le(8, 4) + le(1, 3)), error);
  use_both();
  EXPECT_EQ(receiver().moderation_.chains, 8U);
  EXPECT_EQ(order(calls(1, 0, 0)), ok);
  use_both();
  EXPECT_EQ(receiver().moderation_, engine::CallModeration{});
}

TEST_F(NetControl, a_driver_that_has_not_agreed_to_it_cannot_delay_calls_and_a_reset_ends_it) {
  open(controlled);
  EXPECT_EQ(order(command(6, 0) + le(32, 4) + le(100, 4)), error);
  open(controlled | bit(VIRTIO_NET_F_NOTF_COAL));
  EXPECT_EQ(order(command(6, 0) + le(32, 4) + le(100, 4)), ok);
  net_->reset();
  transmit(plain() + frame_of(64));
  EXPECT_EQ(transmitter().moderation_, engine::CallModeration{});
}

TEST_F(NetControl, a_driver_that_can_announces_itself) {
  open(controlled);
  ASSERT_TRUE(net_->announce(own));
  EXPECT_TRUE(port_->sent_.empty());
  EXPECT_NE(config().status & VIRTIO_NET_S_ANNOUNCE, 0);
  EXPECT_EQ(order(command(3, 1)), error);
  EXPECT_EQ(order(command(3, 0)), ok);
  EXPECT_EQ(config().status & VIRTIO_NET_S_ANNOUNCE, 0);
}

TEST_F(NetControl, without_several_pairs_the_control_queue_is_the_third_whatever_the_device_could_have) {
  auto port = std::make_unique<TestPort>();
  net_ = std::make_unique<Net>(std::move(port), Net::Options{.pairs = 4, .mac = own});
  EXPECT_EQ(net_->queue_count(), 9U);
  net_->set_features(controlled);
  queues_.push_back(std::make_unique<TestQueue>(guest_, *loops_[0], 2, controlled, false));
  queues_.back()->start(*net_);
  EXPECT_EQ(order(command(0, 0) + le(1, 1)), ok);
}

}  // namespace
}  // namespace ringway::net
