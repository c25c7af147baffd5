// The driver half against devices that lie, and what it tells and asks of honest ones.
#include "ringway/ring/driver.h"

#include <gtest/gtest.h>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::Front;
using test::Guest;
using test::Layout;
using test::must;
using test::odd_lap;
using test::Rig;
using test::Shape;

constexpr uint16_t used_odd = odd_lap | test::even_lap;

// A driver, and a device that is nothing but bytes.
struct LyingDevice {
  LyingDevice(Guest& memory, const Shape& shape)
      : guest(memory), layout(memory, shape), front(layout.driver_config()), place(memory.allocate(64)) {}
  [[nodiscard]] vring_avail* avail() const { return reinterpret_cast<vring_avail*>(guest.at(layout.driver)); }
  [[nodiscard]] vring_used* used() const { return reinterpret_cast<vring_used*>(guest.at(layout.device)); }
  [[nodiscard]] vring_packed_desc* descriptors() const {
    return reinterpret_cast<vring_packed_desc*>(guest.at(layout.desc));
  }
  uint16_t add(uint32_t writable = 8) {
    const auto token = front.add({}, {{{place}, writable}});
    EXPECT_TRUE(token);
    return token.value_or(0xffff);
  }
  uint16_t give(uint32_t writable = 8) {
    const uint16_t token = add(writable);
    (void)front.publish();
    return token;
  }
  std::string failure() {
    const auto first = front.try_take_used();
    if (first) return *first ? "a chain" : "nothing";
    const auto second = front.try_take_used();
    return second ? "an error and then none" : second.error().what;
  }
  Guest& guest;
  Layout layout;
  Front front;
  uint64_t place;
};

class Driver : public testing::Test {
 protected:
  Guest guest{uint64_t{4} << 20};
  const Shape split{.size = 4};
  const Shape packed{.size = 4, .format = {.packed = true}};
};

TEST_F(Driver, H350_a_split_used_id_that_is_not_in_flight_breaks_the_ring) {
  for (const uint32_t lie : {1U, 3U, 4U, 0x8000U, 0x1'0000U, 0xffff'ffffU}) {
    LyingDevice device(guest, split);
    ASSERT_EQ(device.give(), 0);
    device.used()->ring[0] = {lie, 0};
    device.used()->idx = 1;
    EXPECT_EQ(device.failure(), lie < 4 ? "used id is not in flight" : "used id is not in the ring");
  }
}

TEST_F(Driver, H350_a_split_used_id_that_comes_twice_breaks_the_ring) {
  LyingDevice device(guest, split);
  const uint16_t token = device.give();
  device.give();
  device.used()->ring[0] = {token, 0};
  device.used()->ring[1] = {token, 0};
  device.used()->idx = 2;
  EXPECT_EQ(device.front.take_used()->token, token);
  EXPECT_EQ(device.failure(), "used id is not in flight");
}

TEST_F(Driver, H350_a_chain_that_was_not_published_cannot_come_back) {
  LyingDevice first(guest, split);
  first.give();
  const uint16_t hidden = first.add();
  first.used()->ring[0] = {hidden, 0};
  first.used()->idx = 1;
  EXPECT_EQ(first.failure(), "used id is not in flight");
}

TEST_F(Driver, H350_a_used_index_beyond_what_is_in_flight_breaks_the_ring) {
  for (const uint16_t index : {2, 3, 5, 32768, 65535}) {
    LyingDevice device(guest, split);
    device.give();
    device.add();  // not published, so not in flight
    device.used()->idx = index;
    EXPECT_EQ(device.failure(), "used index moved beyond what is in flight") << index;
  }
}

TEST_F(Driver, H350_a_length_beyond_the_writable_part_is_cut_and_told) {
  for (const Shape& shape : {split, packed}) {
    LyingDevice device(guest, shape);
    for (const uint32_t claimed : {0U, 7U, 8U, 9U, 0xffff'ffffU}) {
      LyingDevice one(guest, shape);
      const uint16_t token = one.give(8);
      if (shape.format.packed) {
        one.descriptors()[0] = {0, claimed, token, used_odd};
      } else {
        one.used()->ring[0] = {token, claimed};
        one.used()->idx = 1;
      }
      const auto used = one.front.take_used();
      ASSERT_TRUE(used);
      EXPECT_EQ(used->written, std::min(claimed, 8U));
      EXPECT_EQ(used->overlong, claimed > 8);
    }
  }
}

TEST_F(Driver, H350_a_packed_used_id_that_is_not_in_flight_breaks_the_ring) {
  for (const uint16_t lie : {1, 3, 4, 0x8000, 0xffff}) {
    LyingDevice device(guest, packed);
    ASSERT_EQ(device.give(), 0);
    device.descriptors()[0] = {0, 0, lie, used_odd};
    EXPECT_EQ(device.failure(), lie < 4 ? "used id is not in flight" : "used id is not in the ring");
  }
}

TEST_F(Driver, H350_a_packed_used_id_that_comes_twice_breaks_the_ring) {
  LyingDevice device(guest, packed);
  const uint16_t token = device.give();
  device.give();
  device.descriptors()[0] = {0, 0, token, used_odd};
  device.descriptors()[1] = {0, 0, token, used_odd};
  EXPECT_EQ(device.front.take_used()->token, token);
  EXPECT_EQ(device.failure(), "used id is not in flight");
}

TEST_F(Driver, H350_packed_entries_that_look_used_while_nothing_is_in_flight_are_not_looked_at) {
  LyingDevice device(guest, packed);
  for (uint16_t i = 0; i < 4; ++i) device.descriptors()[i] = {0, 0, i, used_odd};
  EXPECT_EQ(device.failure(), "nothing");
  EXPECT_FALSE(device.front.enable_calls());
}

TEST_F(Driver, in_order_one_split_entry_stands_for_all_older_chains) {
  Shape shape = split;
  shape.size = 8;
  shape.format.in_order = true;
  LyingDevice device(guest, shape);
  for (int lap = 0; lap < 20; ++lap) {
    const uint16_t base = device.used()->idx;
    std::array<uint16_t, 5> tokens{};
    for (uint16_t& token : tokens) token = device.add(16);
    (void)device.front.publish();
    device.used()->ring[base % 8] = {tokens[2], 4};
    device.used()->ring[(base + 3) % 8] = {tokens[4], 5};
    device.used()->idx = static_cast<uint16_t>(base + 5);
    for (size_t i = 0; i < 5; ++i) {
      const auto used = device.front.take_used();
      ASSERT_TRUE(used);
      EXPECT_EQ(used->token, tokens[i]);
      EXPECT_EQ(used->written, i == 2 ? 4U : i == 4 ? 5U : 16U) << "skipped chains are used completely";
    }
    EXPECT_FALSE(device.front.take_used());
  }
}

TEST_F(Driver, in_order_a_split_entry_may_not_run_ahead_of_the_used_index) {
  Shape shape = split;
  shape.format.in_order = true;
  LyingDevice device(guest, shape);
  for (int i = 0; i < 3; ++i) device.give();
  device.used()->ring[0] = {2, 0};
  device.used()->idx = 2;
  EXPECT_EQ(device.failure(), "used id is ahead of the used index");
}

TEST_F(Driver, in_order_one_packed_entry_stands_for_all_older_chains) {
  Shape shape = packed;
  shape.size = 7;
  shape.format.in_order = true;
  LyingDevice device(guest, shape);
  uint32_t at = 0;
  for (int round = 0; round < 20; ++round) {
    std::array<uint16_t, 3> tokens{};
    for (uint16_t& token : tokens) {
      const auto added = device.front.add({{{device.place}, 1}}, {{{device.place}, 16}});
      ASSERT_TRUE(added);
      token = *added;
    }
    (void)device.front.publish();
    const bool odd = at / 7 % 2 == 0;
    device.descriptors()[at % 7] = {0, 6, tokens[2], odd ? used_odd : uint16_t{0}};
    at += 6;
    for (size_t i = 0; i < 3; ++i) {
      const auto used = device.front.take_used();
      ASSERT_TRUE(used);
      EXPECT_EQ(used->token, tokens[i]);
      EXPECT_EQ(used->written, i == 2 ? 6U : 16U);
    }
    EXPECT_FALSE(device.front.take_used());
    EXPECT_EQ(device.front.free_descriptors(), 7U);
  }
}

TEST_F(Driver, in_order_split_chains_lie_in_ring_order) {
  Shape shape = split;
  shape.size = 8;
  shape.format.in_order = true;
  Rig rig(guest, shape);
  auto* const descriptors = reinterpret_cast<vring_desc*>(guest.at(rig.layout.desc));
  const Buffer buffer{{guest.allocate(64)}, 8};
  uint16_t expected = 0;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(rig.front.add({buffer, buffer, buffer}, {}), expected);
    for (int link = 0; link < 2; ++link) {
      EXPECT_EQ(descriptors[(expected + link) % 8].next, (expected + link + 1) % 8);
    }
    expected = (expected + 3) % 8;
    (void)rig.front.publish();
    rig.device.push_used(rig.device.pop(), 0);
    (void)rig.device.publish();
    ASSERT_TRUE(rig.front.take_used());
  }
}

TEST_F(Driver, the_area_is_checked) {
  const auto reason = [](DriverConfig config) {
    const Result<ring::Driver> driver = make_driver(config);
    return driver ? "made" : driver.error().what;
  };
  const DriverConfig good = Layout(guest, split).driver_config();
  EXPECT_EQ(reason(good), std::string("made"));
  DriverConfig wrong = good;
  wrong.area += 8;
  EXPECT_EQ(reason(wrong), std::string("driver's area is misaligned"));
  wrong = good;
  wrong.address.value += 16;
  EXPECT_EQ(reason(wrong), std::string("driver's area is misaligned"));
  wrong = good;
  wrong.size = 3;
  EXPECT_EQ(reason(wrong), std::string("split ring size is not a power of two"));
  wrong = good;
  wrong.table_entries = 4;
  EXPECT_EQ(reason(wrong), std::string("indirect tables without VIRTIO_F_INDIRECT_DESC"));
}

TEST_F(Driver, the_parts_of_the_area_do_not_overlap) {
  for (const bool is_packed : {false, true}) {
    for (const uint32_t size : {1U, 4U, 256U, 32768U}) {
      const Format format{.packed = is_packed, .indirect = true, .event_idx = true};
      const DriverLayout layout = DriverLayout::of(size, format, 5);
      EXPECT_GE(layout.driver, layout.desc + RingConfig::desc_bytes(size, format));
      EXPECT_GE(layout.device, layout.driver + RingConfig::driver_bytes(size, format));
      EXPECT_GE(layout.tables, layout.device + RingConfig::device_bytes(size, format));
      EXPECT_GE(layout.bytes, layout.tables + uint64_t{size} * 5 * 16);
      for (const uint64_t part : {layout.desc, layout.driver, layout.device, layout.tables})
        EXPECT_EQ(part % 64, 0U);
    }
  }
}

// What either side asks of the other, in all formats.
class Notifications : public testing::TestWithParam<Shape> {
 protected:
  Guest guest{uint64_t{4} << 20};
  Rig rig{guest, GetParam()};
  const Buffer buffer{{guest.allocate(64)}, 8};

  // Publishes `count` chains at once; whether the device wants a kick.
  bool give(int count) {
    for (int i = 0; i < count; ++i) EXPECT_TRUE(rig.front.add({buffer}, {}));
    return rig.front.publish();
  }
  // Uses `count` chains at once; whether the driver wants a call.
  bool use(int count) {
    for (int i = 0; i < count; ++i) rig.device.push_used(rig.device.pop(), 0);
    return rig.device.publish();
  }
  void take(int count) {
    for (int i = 0; i < count; ++i) EXPECT_TRUE(rig.front.take_used());
  }
};

TEST_P(Notifications, nothing_new_needs_no_notification) {
  EXPECT_FALSE(rig.front.publish());
  EXPECT_FALSE(rig.device.publish());
}

TEST_P(Notifications, kicks_come_once_for_each_time_they_are_asked_for) {
  for (int lap = 0; lap < 30; ++lap) {
    EXPECT_FALSE(rig.device.enable_kicks());
    EXPECT_TRUE(give(1)) << lap;
    rig.device.disable_kicks();
    EXPECT_FALSE(give(1));
    EXPECT_FALSE(give(1));
    EXPECT_TRUE(rig.device.enable_kicks()) << "something is there";
    rig.device.disable_kicks();
    (void)use(3);
    take(3);
  }
}

TEST_P(Notifications, calls_come_once_for_each_time_they_are_asked_for) {
  (void)give(1);
  (void)use(1);  // the first after a start is always told
  take(1);
  for (int lap = 0; lap < 30; ++lap) {
    (void)give(5);
    EXPECT_FALSE(rig.front.enable_calls());
    EXPECT_TRUE(use(1)) << lap;
    rig.front.disable_calls();
    EXPECT_FALSE(use(1));
    EXPECT_FALSE(use(2));
    EXPECT_TRUE(rig.front.enable_calls()) << "something is there";
    rig.front.disable_calls();
    take(4);
    EXPECT_FALSE(rig.front.enable_calls());
    EXPECT_TRUE(use(1));
    take(1);
  }
}

TEST_P(Notifications, a_batch_is_worth_one_notification) {
  (void)give(1);
  (void)use(1);
  take(1);
  for (int lap = 0; lap < 30; ++lap) {
    EXPECT_FALSE(rig.device.enable_kicks());
    EXPECT_TRUE(give(5));
    EXPECT_FALSE(rig.front.enable_calls());
    EXPECT_TRUE(use(5));
    take(5);
  }
}

TEST_P(Notifications, the_event_index_asks_for_one_chain_and_flags_ask_for_all) {
  (void)give(1);
  (void)use(1);
  take(1);
  for (int lap = 0; lap < 30; ++lap) {
    EXPECT_FALSE(rig.device.enable_kicks());
    EXPECT_TRUE(give(1));
    EXPECT_EQ(give(1), !GetParam().format.event_idx);
    EXPECT_FALSE(rig.front.enable_calls());
    EXPECT_TRUE(use(1));
    EXPECT_EQ(use(1), !GetParam().format.event_idx);
    take(2);
  }
}

TEST_P(Notifications, the_first_chain_after_a_start_is_told) {
  (void)give(1);
  (void)use(1);
  take(1);
  EXPECT_FALSE(rig.front.enable_calls());
  (void)give(2);
  (void)use(1);  // the call for this one may be lost with the device
  rig.device = test::Device(must(start(rig.device.stop(), guest.view())));
  EXPECT_TRUE(use(1));
}

std::vector<Shape> notification_shapes() {
  std::vector<Shape> shapes;
  for (const bool packed : {false, true}) {
    for (const bool event_idx : {false, true}) {
      shapes.push_back({.size = 8, .format = {.packed = packed, .event_idx = event_idx}});
    }
  }
  shapes.push_back({.size = 8, .format = {.event_idx = true, .big_endian = true}});
  shapes.push_back({.size = 7, .format = {.packed = true, .event_idx = true}});
  shapes.push_back({.size = 8, .format = {.event_idx = true}, .base = {.avail = 65530, .used = 65530}});
  return shapes;
}

INSTANTIATE_TEST_SUITE_P(all, Notifications, testing::ValuesIn(notification_shapes()));

}  // namespace
}  // namespace ringway::ring
