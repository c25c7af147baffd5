#include "ringway/device/port/switch.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "ringway/device/port/ingress.h"
#include "ringway/device/port/offload.h"
#include "ringway/device/port/switch_rig_test.h"

namespace ringway::port {
namespace {

using test::Arrived;
using test::Bytes;
using test::counting;
using test::eventually;
using test::Guest;
using test::Queues;
using test::operator+;  // NOLINT(misc-unused-using-decls): it is used below, by its sign

// All on one worker, or each guest on one of three.
class SwitchTest : public testing::TestWithParam<bool> {
 protected:
  SwitchTest() {
    for (unsigned i = 0; i < (GetParam() ? 3 : 1); ++i) loops_.push_back(loop::testing::start_or_fail({}));
  }
  void TearDown() override { guests_.clear(); }

  Guest& guest(const StationOptions& options = {}) {
    const auto number = static_cast<unsigned>(guests_.size());
    guests_.push_back(std::make_unique<Guest>(*switch_, *loops_[number % loops_.size()], number, options));
    return *guests_.back();
  }
  // Everybody has been heard of.
  void introduce() {
    for (const auto& one : guests_) one->queues.send(one->frame_to(broadcast_mac));
    for (const auto& one : guests_) {
      EXPECT_TRUE(eventually([&] { return one->queues.received >= guests_.size() - 1; }));
      while (one->queues.has_arrived()) one->queues.next();
      one->queues.received = 0;
    }
  }

  std::vector<std::unique_ptr<loop::Loop>> loops_;
  std::shared_ptr<Switch> switch_ = Switch::make({});
  std::vector<std::unique_ptr<Guest>> guests_;
};
INSTANTIATE_TEST_SUITE_P(Workers, SwitchTest, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "many" : "one"; });

TEST_P(SwitchTest, an_unknown_address_is_asked_of_all_and_a_known_one_is_not) {
  Guest& a = guest();
  Guest& b = guest();
  Guest& c = guest();
  const Bytes first = a.frame_to(b.mac());
  a.queues.send(first);
  EXPECT_EQ(b.queues.next().bytes, first);
  EXPECT_EQ(c.queues.next().bytes, first);
  b.send_to(a);
  EXPECT_EQ(a.queues.next().bytes, b.frame_to(a.mac()));
  EXPECT_TRUE(c.queues.is_silent());
  a.send_to(b);
  EXPECT_FALSE(b.queues.next().bytes.empty());
  EXPECT_TRUE(c.queues.is_silent());
}

TEST_P(SwitchTest, frames_of_all_sizes_arrive_as_they_were) {
  Guest& a = guest();
  Guest& b = guest();
  introduce();
  for (const size_t size : {0U, 1U, 45U, 46U, 47U, 1500U, 9000U, 65535U}) {
    const Bytes frame = a.frame_to(b.mac(), counting(size, 3));
    a.queues.send(frame);
    EXPECT_EQ(b.queues.next().bytes, frame) << size;
  }
}

TEST_P(SwitchTest, nobody_gets_his_own_frames_back) {
  Guest& a = guest();
  guest();
  introduce();
  a.queues.send(a.frame_to(broadcast_mac));
  a.queues.send(a.frame_to(a.mac()));
  EXPECT_TRUE(a.queues.is_silent());
  EXPECT_EQ(a.count("sent, dropped: not allowed"), 1U);
}

TEST_P(SwitchTest, a_batch_goes_where_its_frames_say) {
  Guest& a = guest();
  Guest& b = guest();
  Guest& c = guest();
  introduce();
  std::vector<Bytes> batch;
  for (uint8_t i = 0; i < 40; ++i) batch.push_back(a.frame_to((i % 3 == 0 ? b : c).mac(), counting(60U + i)));
  // Dropped: what was found for it is not used for the next one.
  batch[1] = test::ethernet(b.mac(), b.mac() | 1, counting(60));
  batch[2] = a.frame_to(a.mac());
  a.queues.send_batch(batch);
  for (uint8_t i = 0; i < 40; ++i) {
    if (i == 1 || i == 2) continue;
    EXPECT_EQ((i % 3 == 0 ? b : c).queues.next().bytes, batch[i]) << int{i};
  }
  EXPECT_TRUE(b.queues.is_silent() && c.queues.is_silent());
}

// Runs of frames to the same guest are broken by tags, by work that is left to do, and by what is dropped.
TEST_P(SwitchTest, a_batch_of_all_kinds_of_frames_arrives_in_order) {
  Guest& a = guest({.trunk = std::bitset<4096>().set(10).set(20), .native = 10});
  Guest& b = guest({.vlan = 10});
  b.queues.offloads = bit(VIRTIO_NET_F_GUEST_CSUM);
  introduce();
  auto unfinished = test::build({.payload = 500});
  std::ranges::copy(test::mac_bytes(b.mac()), unfinished.frame.begin());
  std::ranges::copy(test::mac_bytes(a.mac()), unfinished.frame.begin() + 6);
  std::vector<Arrived> batch;
  std::vector<Arrived> expected;
  for (unsigned i = 0; i < 30; ++i) {
    const Bytes payload = counting(60U + i, i);
    const Bytes plain = a.frame_to(b.mac(), payload);
    switch (i % 6) {
      case 1:  // in the native VLAN by its tag
        batch.push_back({test::tagged(b.mac(), a.mac(), 10, payload), {}});
        expected.push_back({plain, {}});
        break;
      case 2:  // of a VLAN that b is not in
        batch.push_back({test::tagged(b.mac(), a.mac(), 20, payload), {}});
        break;
      case 3:
        batch.push_back({unfinished.frame, unfinished.offload});
        expected.push_back(batch.back());
        break;
      case 4:  // of no VLAN of a's
        batch.push_back({test::tagged(b.mac(), a.mac(), 30, payload), {}});
        break;
      default:
        batch.push_back({plain, {}});
        expected.push_back({plain, {}});
    }
  }
  a.queues.send_batch(batch);
  for (size_t i = 0; i < expected.size(); ++i) {
    const Arrived arrived = b.queues.next();
    EXPECT_EQ(arrived.bytes, expected[i].bytes) << i;
    EXPECT_EQ(arrived.offload, expected[i].offload) << i;
  }
  EXPECT_TRUE(b.queues.is_silent());
  EXPECT_EQ(a.count("sent, dropped: VLAN"), 5U);
  const size_t with_the_introduction = expected.size() + 1;
  EXPECT_TRUE(eventually([&] { return b.count("frames received") == with_the_introduction; }));
}

TEST_P(SwitchTest, a_mirror_sees_every_frame_of_a_batch) {
  Guest& a = guest();
  Guest& b = guest();
  introduce();
  Guest& mirror = guest({.mirror = true});
  std::vector<Bytes> batch;
  for (uint8_t i = 0; i < 20; ++i) batch.push_back(a.frame_to(b.mac(), counting(60U + i)));
  a.queues.send_batch(batch);
  for (const Bytes& frame : batch) {
    EXPECT_EQ(mirror.queues.next().bytes, frame);
    EXPECT_EQ(b.queues.next().bytes, frame);
  }
}

TEST_P(SwitchTest, a_batch_to_who_is_not_known_goes_to_everybody_until_he_is) {
  Guest& a = guest();
  Guest& b = guest();
  Guest& c = guest();
  a.queues.send_batch({a.frame_to(b.mac()), a.frame_to(c.mac()), a.frame_to(broadcast_mac)});
  for (Guest* each : {&b, &c}) {
    for (const Mac to : {b.mac(), c.mac(), broadcast_mac})
      EXPECT_EQ(each->queues.next().bytes, a.frame_to(to));
  }
}

TEST_P(SwitchTest, vlans_do_not_mix_and_tags_are_put_in_and_taken_out) {
  Guest& access10 = guest({.vlan = 10});
  Guest& other10 = guest({.vlan = 10});
  Guest& access20 = guest({.vlan = 20});
  Guest& trunk = guest({.trunk = std::bitset<4096>().set(10).set(20), .native = 0});
  const Bytes payload = counting(200);
  access10.queues.send(access10.frame_to(broadcast_mac, payload));
  EXPECT_EQ(other10.queues.next().bytes, access10.frame_to(broadcast_mac, payload));
  EXPECT_EQ(trunk.queues.next().bytes, test::tagged(broadcast_mac, access10.mac(), 10, payload));
  EXPECT_TRUE(access20.queues.is_silent());
  trunk.queues.send(test::tagged(access10.mac(), trunk.mac(), 0x6000 | 10, payload));
  EXPECT_EQ(access10.queues.next().bytes, trunk.frame_to(access10.mac(), payload));
  trunk.queues.send(test::tagged(broadcast_mac, trunk.mac(), 20, payload));
  EXPECT_EQ(access20.queues.next().bytes, trunk.frame_to(broadcast_mac, payload));
  EXPECT_TRUE(access10.queues.is_silent());
  trunk.queues.send(trunk.frame_to(broadcast_mac));
  access10.queues.send(test::tagged(access20.mac(), access10.mac(), 20, payload));
  trunk.queues.send(test::tagged(broadcast_mac, trunk.mac(), 30, payload));
  EXPECT_TRUE(access20.queues.is_silent());
  EXPECT_EQ(trunk.count("sent, dropped: VLAN"), 2U);
  EXPECT_EQ(access10.count("sent, dropped: VLAN"), 1U);
}

TEST_P(SwitchTest, a_checksum_moves_with_the_tag) {
  Guest& access = guest({.vlan = 10});
  Guest& trunk = guest();
  trunk.queues.offloads = bit(VIRTIO_NET_F_GUEST_CSUM);
  auto built = test::build({});
  access.queues.send(built.frame, built.offload);
  const auto arrived = trunk.queues.next();
  ASSERT_EQ(arrived.bytes.size(), built.frame.size() + 4);
  EXPECT_EQ(arrived.offload.csum_start, built.offload.csum_start + 4);
  auto finished = arrived;
  ASSERT_TRUE(complete_checksum(finished.bytes, finished.offload));
  EXPECT_TRUE(test::checksums_are_right(finished.bytes));
  // And back, for a driver that wants it done.
  Offload offload = arrived.offload;
  Bytes back = arrived.bytes;
  std::swap_ranges(back.begin(), back.begin() + 6, back.begin() + 6);
  trunk.queues.send(back, offload);
  const auto done = access.queues.next();
  EXPECT_EQ(done.bytes.size(), built.frame.size());
  EXPECT_EQ(done.offload, Offload{});
  EXPECT_TRUE(test::checksums_are_right(done.bytes));
}

TEST_P(SwitchTest, offloads_are_carried_along_or_done) {
  Guest& a = guest();
  Guest& able = guest();
  Guest& plain = guest();
  able.queues.offloads = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4);
  auto built = test::build({.payload = 10000});
  built.offload.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
  built.offload.gso_size = 1448;
  std::ranges::copy(test::mac_bytes(broadcast_mac), built.frame.begin());
  a.queues.send(built.frame, built.offload);
  const auto whole = able.queues.next();
  EXPECT_EQ(whole.bytes, built.frame);
  EXPECT_EQ(whole.offload, built.offload);
  for (int i = 0; i < 7; ++i) {
    const auto segment = plain.queues.next();
    EXPECT_EQ(segment.offload, Offload{});
    EXPECT_TRUE(test::checksums_are_right(segment.bytes));
  }
  EXPECT_TRUE(plain.queues.is_silent());
  built.offload.gso_size = 0;
  a.queues.send(built.frame, built.offload);
  EXPECT_TRUE(plain.queues.is_silent());
  EXPECT_EQ(plain.count("to receive, dropped: offload cannot be done"), 1U);
}

TEST_P(SwitchTest, isolated_guests_reach_only_those_that_are_not) {
  Guest& a = guest({.isolated = true});
  Guest& b = guest({.isolated = true});
  Guest& gateway = guest();
  a.queues.send(a.frame_to(broadcast_mac));
  b.queues.send(b.frame_to(broadcast_mac));
  EXPECT_FALSE(gateway.queues.next().bytes.empty());
  EXPECT_FALSE(gateway.queues.next().bytes.empty());
  a.send_to(b);
  EXPECT_TRUE(b.queues.is_silent());
  EXPECT_TRUE(a.queues.is_silent());
  gateway.send_to(a);
  EXPECT_FALSE(a.queues.next().bytes.empty());
}

TEST_P(SwitchTest, a_mirror_sees_all_and_says_nothing) {
  Guest& a = guest();
  Guest& b = guest();
  Guest& mirror = guest({.mirror = true});
  b.queues.send(b.frame_to(broadcast_mac));
  a.send_to(b);
  EXPECT_EQ(mirror.queues.next().bytes, b.frame_to(broadcast_mac));
  EXPECT_EQ(mirror.queues.next().bytes, a.frame_to(b.mac()));
  EXPECT_EQ(b.queues.next().bytes, a.frame_to(b.mac()));
  EXPECT_FALSE(a.queues.next().bytes.empty());
  mirror.queues.send(mirror.frame_to(broadcast_mac));
  EXPECT_TRUE(a.queues.is_silent());
  EXPECT_FALSE(switch_->plug({.mirror = true}));
}

TEST_P(SwitchTest, foreign_and_group_source_addresses_do_not_pass) {
  Guest& a = guest({.mac = test::station_mac(0)});
  Guest& b = guest();
  a.queues.send(b.frame_to(broadcast_mac));
  a.queues.send(test::ethernet(b.mac(), broadcast_mac, counting(50)));
  EXPECT_TRUE(b.queues.is_silent());
  EXPECT_EQ(a.count("sent, dropped: source address"), 2U);
  a.send_to(b);
  EXPECT_FALSE(b.queues.next().bytes.empty());
}

TEST_P(SwitchTest, rates_are_kept) {
  Guest& a = guest({.tx_pps = 1});
  Guest& b = guest();
  introduce();
  b.queues.keep = false;
  for (int i = 0; i < 1000; ++i) a.send_to(b);
  EXPECT_GT(a.count("sent, dropped: rate"), 900U);
  EXPECT_LT(b.queues.received, 100U);
}

TEST_P(SwitchTest, frames_wait_for_buffers_in_order) {
  Guest& a = guest();
  Guest& b = guest();
  introduce();
  std::vector<Bytes> frames;
  for (unsigned i = 0; i < 20; ++i) frames.push_back(a.frame_to(b.mac(), counting(300, i)));
  std::vector<Bytes> arrived;
  // Again if we were so slow that some have waited too long.
  std::array<bool, 2> all{};
  for (int round = 0; round < 100 && !(all[0] && all[1]); ++round) {
    arrived.clear();
    b.queues.buffers = round % 2 == 0 ? 7 : 0;
    if (round % 2 == 0) {
      a.queues.send_batch(frames);
    } else {
      a.queues.worker().run([&] {
        for (const Bytes& frame : frames) a.queues.send_here(frame);
      });
    }
    b.queues.worker().run([] {});
    b.queues.give_buffers(15);
    b.queues.give_buffers(100);
    EXPECT_TRUE(eventually([&] { return a.queues.under_way == 0; }));
    while (b.queues.has_arrived()) arrived.push_back(b.queues.next().bytes);
    all[round % 2] = all[round % 2] || arrived == frames;
  }
  EXPECT_TRUE(all[0]) << "of a batch";
  EXPECT_TRUE(all[1]) << "one by one";
}

TEST_P(SwitchTest, who_never_has_buffers_holds_up_nobody) {
  Guest& a = guest();
  Guest& dead = guest();
  Guest& c = guest();
  introduce();
  dead.queues.buffers = 0;
  for (int i = 0; i < 400; ++i) a.send_to(dead);
  a.send_to(c);
  EXPECT_FALSE(c.queues.next().bytes.empty());
  EXPECT_TRUE(eventually([&] { return a.queues.under_way == 0; }));
  EXPECT_EQ(dead.count("to receive, dropped: no buffers"), 400U);
}

TEST_P(SwitchTest, what_waits_ends_when_its_sender_drains) {
  Guest& a = guest();
  Guest& dead = guest();
  introduce();
  dead.queues.buffers = 0;
  a.queues.worker().run([&] {
    for (int i = 0; i < 100; ++i) a.queues.send_here(a.frame_to(dead.mac()));
  });
  a.queues.drain();
  EXPECT_TRUE(eventually([&] { return a.queues.under_way == 0; }));
}

TEST_P(SwitchTest, what_waits_ends_when_its_receiver_stops) {
  Guest& a = guest();
  Guest& dead = guest();
  introduce();
  dead.queues.buffers = 0;
  for (int i = 0; i < 100; ++i) a.send_to(dead);
  dead.queues.stop_receiving();
  EXPECT_TRUE(eventually([&] { return a.queues.under_way == 0; }));
  a.send_to(dead);
  EXPECT_TRUE(eventually([&] { return a.queues.under_way == 0; }));
  EXPECT_GE(a.count("sent, dropped: receiver not running"), 1U);
}

TEST_P(SwitchTest, a_storm_leaves_room_for_others) {
  Guest& stormy = guest({.flood_pps = 1000});
  Guest& a = guest();
  Guest& b = guest();
  introduce();
  for (const auto& one : guests_) one->queues.keep = false;
  stormy.queues.worker().run([&] {
    for (int i = 0; i < 5000; ++i) stormy.queues.send_here(stormy.frame_to(broadcast_mac));
  });
  b.queues.keep = true;
  a.send_to(b);
  Bytes arrived = b.queues.next().bytes;
  while (arrived == stormy.frame_to(broadcast_mac)) arrived = b.queues.next().bytes;
  EXPECT_EQ(arrived, a.frame_to(b.mac()));
  EXPECT_GT(stormy.count("sent, dropped: storm"), 4000U);
}

TEST_P(SwitchTest, a_storm_is_bounded_in_each_turn_without_any_setting) {
  Guest& stormy = guest();
  Guest& a = guest();
  guest();
  introduce();
  for (const auto& one : guests_) one->queues.keep = false;
  constexpr int frames = 5000;
  const auto storm = [&] {
    const uint64_t before = stormy.count("frames sent to everybody");
    stormy.queues.worker().run([&] {
      for (int i = 0; i < frames; ++i) stormy.queues.send_here(stormy.frame_to(broadcast_mac));
    });
    return stormy.count("frames sent to everybody") - before;
  };
  EXPECT_LE(storm(), uint64_t{Ingress::copies_at_once}) << "each makes at least one copy";
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_GE(storm(), 32U) << "who was quiet for a while may send some at once";
  a.queues.send(a.frame_to(stormy.mac()));
  EXPECT_TRUE(eventually([&] { return stormy.queues.received > 0; }));
}

TEST_P(SwitchTest, flows_spread_over_the_queues_of_a_guest_and_each_stays_in_its_own) {
  Guest& a = guest();
  const auto port = test::value_of(switch_->plug({}));
  ASSERT_TRUE(port->wish({.pairs = 4}));
  std::vector<std::unique_ptr<Queues>> pairs;
  for (uint16_t i = 0; i < 4; ++i)
    pairs.push_back(std::make_unique<Queues>(*port, *loops_[i % loops_.size()], i));
  pairs[2]->send(test::ethernet(broadcast_mac, test::station_mac(1), counting(50)));
  EXPECT_FALSE(a.queues.next().bytes.empty());
  for (unsigned flow = 0; flow < 400; ++flow) {
    auto built = test::build({});
    std::ranges::copy(test::mac_bytes(a.mac()), built.frame.begin() + 6);
    poke(&built.frame[34], be16(static_cast<uint16_t>(flow % 100)));
    a.queues.send(built.frame);
  }
  const auto total = [&] {
    size_t sum = 0;
    for (const auto& pair : pairs) sum += pair->received;
    return sum;
  };
  EXPECT_TRUE(eventually([&] { return total() == 400; }));
  for (const auto& pair : pairs) {
    EXPECT_GT(pair->received, 40U);
    EXPECT_EQ(pair->received % 4, 0U) << "a flow was split";
  }
  a.queues.send(a.frame_to(broadcast_mac));
  EXPECT_TRUE(eventually([&] { return total() == 401; })) << "a broadcast comes once";
  pairs.clear();
}

TEST_P(SwitchTest, counters_and_addresses_outlive_a_restart_of_the_queues) {
  Guest& a = guest();
  const auto port = test::value_of(switch_->plug({}));
  for (int i = 0; i < 3; ++i) {
    Queues queues(*port, *loops_[0], 0);
    queues.send(test::ethernet(a.mac(), test::station_mac(1), counting(50)));
    EXPECT_FALSE(a.queues.next().bytes.empty());
    a.queues.send(a.frame_to(test::station_mac(1)));
    EXPECT_FALSE(queues.next().bytes.empty());
  }
  EXPECT_EQ(port->counters()[0].value, 3U) << port->counters()[0].name;
  EXPECT_EQ(a.count("frames sent to everybody"), 0U);
}

// Guests send, stop and start again, drain and have no buffers, on several workers at once. Every frame ends,
// and nobody gets what was not for him.
TEST_P(SwitchTest, nothing_is_lost_track_of_whatever_comes_and_goes) {
  constexpr unsigned count = 6;
  std::vector<std::unique_ptr<Port>> ports;
  for (unsigned i = 0; i < count; ++i) ports.push_back(test::value_of(switch_->plug({})));
  std::atomic<unsigned> foreign = 0;
  std::atomic<uint64_t> arrived = 0;
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      std::minstd_rand random(i + 1);
      for (int round = 0; round < 12; ++round) {
        Queues queues(*ports[i], *loops_[random() % loops_.size()], 0);
        queues.buffers = random() % 4 == 0 ? 3 : 1'000'000;
        for (int batch = 0; batch < 10; ++batch) {
          const unsigned seed = random();
          queues.worker().run([&] {
            std::minstd_rand inner(seed);
            for (int k = 0; k < 30; ++k) {
              const unsigned to = inner() % (count + 1);
              const Mac mac = to == count ? broadcast_mac : test::station_mac(to);
              queues.send_here(test::ethernet(mac, test::station_mac(i), counting(inner() % 2000)));
            }
          });
          if (random() % 8 == 0) queues.drain();
          if (random() % 4 == 0) queues.give_buffers(20);
        }
        while (queues.has_arrived()) {
          const Bytes bytes = queues.next().bytes;
          const Mac to = peek_mac(bytes.data());
          const bool payload_is_right =
              bytes == test::ethernet(to, peek_mac(&bytes[6]), counting(bytes.size() - 14));
          if (!payload_is_right) ++foreign;
          ++arrived;
        }
      }
    });
  }
  threads.clear();
  EXPECT_EQ(foreign, 0U);
  EXPECT_GT(arrived, 1000U);
}

}  // namespace
}  // namespace ringway::port
