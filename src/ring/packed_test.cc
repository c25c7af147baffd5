// The device half of a packed ring against drivers that break the rules; numbers are those of
// docs/robustness.md.
#include "ringway/ring/packed.h"

#include <gtest/gtest.h>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::even_lap;
using test::Guest;
using test::HostilePacked;
using test::odd_lap;
using test::pieces_of;
using test::Shape;

constexpr uint16_t next = VRING_DESC_F_NEXT;
constexpr uint16_t write = VRING_DESC_F_WRITE;
constexpr uint16_t indirect = VRING_DESC_F_INDIRECT;
constexpr uint16_t used_odd = odd_lap | even_lap;  // used in the first lap
constexpr uint64_t nowhere = 0xdead'0000'0000;

Shape of_size(uint32_t size, bool event_idx = false) {
  return {.size = size, .format = {.packed = true, .indirect = true, .event_idx = event_idx}};
}

class HostilePackedRing : public testing::Test {
 protected:
  static std::string pop(HostilePacked& rig) {
    Chain chain = rig.device.pop();
    if (!chain) return "nothing";
    std::string pieces = pieces_of(chain, rig.guest, rig.data);
    rig.device.push_used(std::move(chain), 0);
    return pieces;
  }
  Guest guest{uint64_t{8} << 20};
};

TEST_F(HostilePackedRing, a_chain_is_read_and_used_as_the_specification_lays_it_out) {
  HostilePacked rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, 0, odd_lap | next};
  rig.descriptors()[1] = {rig.data + 16, 9, 2, odd_lap | write};
  rig.descriptors()[2] = {rig.data + 32, 10, 1, odd_lap};
  Chain first = rig.device.pop();
  Chain second = rig.device.pop();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(pieces_of(first, guest, rig.data), "0+8 | 16+9");
  EXPECT_EQ(first.index(), 2);
  rig.device.push_used(std::move(second), 0);
  rig.device.push_used(std::move(first), 5);
  EXPECT_EQ(rig.descriptors()[0].flags, odd_lap | next) << "shown before it was published";
  EXPECT_TRUE(rig.device.publish());
  EXPECT_EQ(rig.descriptors()[0].id, 1);
  EXPECT_EQ(rig.descriptors()[0].len, 0U);
  EXPECT_EQ(rig.descriptors()[0].flags, used_odd);
  EXPECT_EQ(rig.descriptors()[1].id, 2);
  EXPECT_EQ(rig.descriptors()[1].len, 5U);
  EXPECT_EQ(rig.descriptors()[1].flags, used_odd | write);
  EXPECT_EQ(rig.descriptors()[2].flags, odd_lap) << "a used chain is one descriptor";
  EXPECT_EQ(rig.device.base(), (RingBase{.avail = 3, .used = 3}));
}

TEST_F(HostilePackedRing, an_indirect_table_is_a_list_and_only_its_write_flags_count) {
  HostilePacked rig(guest, of_size(4));
  rig.table(256)[0] = {rig.data, 8, 0x7777, 0};
  rig.table(256)[1] = {rig.data + 16, 9, 0x7777, 0};
  rig.table(256)[2] = {rig.data + 32, 10, 0x7777, write};
  rig.descriptors()[0] = {rig.data + 256, 48, 3, odd_lap | indirect};
  EXPECT_EQ(pop(rig), "0+8 16+9 | 32+10");
}

TEST_F(HostilePackedRing, H211_flags_that_make_every_entry_available_end_after_one_lap) {
  for (const uint16_t lap : {odd_lap, even_lap}) {
    HostilePacked rig(guest, of_size(7));
    for (uint16_t i = 0; i < 7; ++i) rig.descriptors()[i] = {rig.data, 8, i, lap};
    std::vector<Chain> chains;
    while (Chain chain = rig.device.pop()) {
      chains.push_back(std::move(chain));
      // What the driver writes for the next lap while all entries are in flight is not looked at.
      for (uint16_t i = 0; i < 7; ++i) rig.descriptors()[i].flags = chains.size() >= 7 ? even_lap : odd_lap;
    }
    EXPECT_EQ(chains.size(), lap == odd_lap ? 7U : 0U);
    EXPECT_EQ(rig.failure(), "nothing");
    EXPECT_FALSE(rig.device.enable_kicks()) << "would be polled for ever";
    for (Chain& chain : chains) rig.device.abandon(std::move(chain));
  }
}

TEST_F(HostilePackedRing, H211_a_chain_that_is_not_complete_is_refused) {
  for (const uint16_t second : {uint16_t{0}, even_lap, used_odd}) {
    HostilePacked rig(guest, of_size(4));
    rig.descriptors()[0] = {rig.data, 8, 0, odd_lap | next};
    rig.descriptors()[1] = {rig.data, 8, 0, second};
    EXPECT_EQ(rig.failure(), "descriptor chain is not complete");
  }
}

TEST_F(HostilePackedRing, H212_a_chain_that_meets_its_own_head_is_refused) {
  for (const uint16_t size : {1, 3, 7, 40}) {
    HostilePacked rig(guest, of_size(size));
    for (uint16_t i = 0; i < size; ++i) rig.descriptors()[i] = {rig.data, 8, i, odd_lap | next};
    EXPECT_EQ(rig.failure(), "descriptor chain is longer than the ring");
  }
}

TEST_F(HostilePackedRing, H212_a_chain_that_meets_one_in_flight_is_refused) {
  HostilePacked rig(guest, of_size(4));
  for (uint16_t i = 0; i < 3; ++i) rig.descriptors()[i] = {rig.data, 8, i, odd_lap};
  std::vector<Chain> chains;
  while (Chain chain = rig.device.pop()) chains.push_back(std::move(chain));
  rig.descriptors()[3] = {rig.data, 8, 3, odd_lap | next};
  rig.descriptors()[0] = {rig.data, 8, 3, even_lap};
  EXPECT_EQ(rig.failure(), "descriptor chain is longer than the ring");
  for (Chain& chain : chains) rig.device.abandon(std::move(chain));
}

TEST_F(HostilePackedRing, H214_a_buffer_id_beyond_the_ring_is_refused) {
  for (const uint16_t id : {uint16_t{7}, uint16_t{8}, uint16_t{0x8000}, uint16_t{0xffff}}) {
    HostilePacked rig(guest, of_size(7));
    rig.descriptors()[0] = {rig.data, 8, id, odd_lap};
    EXPECT_EQ(rig.failure(), "buffer id is not less than the ring size");
  }
}

TEST_F(HostilePackedRing, H214_a_buffer_id_that_is_in_flight_is_refused) {
  HostilePacked rig(guest, of_size(7));
  for (uint16_t i = 0; i < 3; ++i)
    rig.descriptors()[i] = {rig.data, 8, static_cast<uint16_t>(i % 2), odd_lap};
  Chain first = rig.device.pop();
  Chain second = rig.device.pop();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(rig.failure(), "buffer id is in flight already");
  rig.device.abandon(std::move(first));
  rig.device.abandon(std::move(second));
}

TEST_F(HostilePackedRing, H215_flags_other_than_write_in_an_indirect_table_are_ignored) {
  for (const uint16_t flags : {next, indirect, odd_lap, even_lap, uint16_t{0xffff & ~write}}) {
    HostilePacked rig(guest, of_size(4));
    rig.table(256)[0] = {rig.data, 8, 0, flags};
    rig.table(256)[1] = {rig.data + 16, 8, 0, static_cast<uint16_t>(flags | write)};
    rig.descriptors()[0] = {rig.data + 256, 32, 0, odd_lap | indirect};
    EXPECT_EQ(pop(rig), "0+8 | 16+8");
  }
}

TEST_F(HostilePackedRing, H188_the_write_flag_of_an_indirect_descriptor_is_ignored) {
  HostilePacked rig(guest, of_size(4));
  rig.table(256)[0] = {rig.data, 8, 0, 0};
  rig.descriptors()[0] = {rig.data + 256, 16, 0, odd_lap | indirect | write};
  EXPECT_EQ(pop(rig), "0+8 | ");
}

TEST_F(HostilePackedRing, an_indirect_descriptor_in_a_list_is_refused) {
  HostilePacked rig(guest, of_size(4));
  rig.table(256)[0] = {rig.data, 8, 0, 0};
  rig.descriptors()[0] = {rig.data, 8, 0, odd_lap | next};
  rig.descriptors()[1] = {rig.data + 256, 16, 0, odd_lap | indirect};
  EXPECT_EQ(rig.failure(), "indirect descriptor is linked with a next one");
  rig.descriptors()[0] = {rig.data + 256, 16, 0, odd_lap | indirect | next};
  rig.descriptors()[1] = {rig.data, 8, 0, odd_lap};
  rig.restart();
  EXPECT_EQ(rig.failure(), "indirect descriptor is linked with a next one");
}

TEST_F(HostilePackedRing, H217_an_indirect_tables_length_is_a_positive_multiple_of_16) {
  for (const uint32_t length : {0U, 1U, 15U, 17U, 40U, 0xffff'ffffU}) {
    HostilePacked rig(guest, of_size(4));
    rig.descriptors()[0] = {rig.data + 256, length, 0, odd_lap | indirect};
    EXPECT_EQ(rig.failure(), "indirect table's length is not a positive multiple of 16");
  }
}

TEST_F(HostilePackedRing, H176_an_indirect_table_has_at_most_1024_entries) {
  for (const uint32_t entries : {1024U, 1025U}) {
    HostilePacked rig(guest, of_size(4));
    const uint64_t at = guest.allocate(uint64_t{entries} * 16, 16);
    for (uint32_t i = 0; i < entries; ++i) {
      reinterpret_cast<vring_packed_desc*>(guest.at(at))[i] = {rig.data + 2 * i, 1, 0, 0};
    }
    rig.descriptors()[0] = {at, entries * 16, 0, odd_lap | indirect};
    EXPECT_EQ(rig.failure(), entries == 1024 ? "a chain" : "indirect table has too many entries");
  }
}

TEST_F(HostilePackedRing, H184_an_indirect_descriptor_without_the_feature_is_refused) {
  HostilePacked rig(guest, {.size = 4, .format = {.packed = true}});
  rig.descriptors()[0] = {rig.data + 256, 16, 0, odd_lap | indirect};
  EXPECT_EQ(rig.failure(), "indirect descriptor without VIRTIO_F_INDIRECT_DESC");
}

TEST_F(HostilePackedRing, H194_H197_buffers_are_held_to_the_same_rules_as_in_split_rings) {
  HostilePacked outside(guest, of_size(4));
  outside.descriptors()[0] = {nowhere, 8, 0, odd_lap};
  EXPECT_EQ(outside.failure(), "descriptor points outside the memory table");
  HostilePacked wraps(guest, of_size(4));
  wraps.descriptors()[0] = {UINT64_MAX, 2, 0, odd_lap | write};
  EXPECT_EQ(wraps.failure(), "descriptor points outside the memory table");
  HostilePacked backwards(guest, of_size(4));
  backwards.descriptors()[0] = {backwards.data, 8, 0, odd_lap | write | next};
  backwards.descriptors()[1] = {backwards.data, 8, 0, odd_lap};
  EXPECT_EQ(backwards.failure(), "device-readable descriptor behind a device-writable one");
}

TEST_F(HostilePackedRing, H199_descriptors_that_change_after_the_pop_change_nothing) {
  HostilePacked rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, 0, odd_lap | next};
  rig.descriptors()[1] = {rig.data + 16, 8, 0, odd_lap | write};
  Chain chain = rig.device.pop();
  ASSERT_TRUE(chain);
  rig.descriptors()[0] = {nowhere, 0xffff'ffff, 9, odd_lap | write};
  rig.descriptors()[1] = {nowhere, 0xffff'ffff, 9, even_lap};
  EXPECT_EQ(pieces_of(chain, guest, rig.data), "0+8 | 16+8");
  rig.device.push_used(std::move(chain), 0);
}

// One chain after the other; the driver's event structure stays as it is. How many of them want a call.
int calls_of(HostilePacked& rig, uint16_t flags, uint16_t off_wrap, uint32_t chains) {
  rig.driver_event()->flags = flags;
  rig.driver_event()->off_wrap = off_wrap;
  int calls = 0;
  for (uint32_t i = 0; i < chains; ++i) {
    const bool even = i / rig.shape.size % 2 != 0;
    rig.descriptors()[i % rig.shape.size] = {rig.data, 8, 0, even ? even_lap : odd_lap};
    Chain chain = rig.device.pop();
    if (!chain) return -1;
    rig.device.push_used(std::move(chain), 0);
    if (rig.device.publish()) ++calls;
  }
  return calls;
}

TEST_F(HostilePackedRing, H218_the_drivers_event_structure_may_hold_anything) {
  const auto calls = [&](bool event_idx, uint16_t flags, uint16_t off_wrap) {
    HostilePacked rig(guest, of_size(5, event_idx));
    return calls_of(rig, flags, off_wrap, 40);
  };
  EXPECT_EQ(calls(true, VRING_PACKED_EVENT_FLAG_ENABLE, 0xffff), 40);
  EXPECT_EQ(calls(true, VRING_PACKED_EVENT_FLAG_DISABLE, 0), 0);
  EXPECT_EQ(calls(true, 3, 0xffff), 40) << "reserved: enabled";
  EXPECT_EQ(calls(true, 0xfffc | VRING_PACKED_EVENT_FLAG_DISABLE, 0), 0) << "reserved bits are ignored";
  EXPECT_EQ(calls(false, VRING_PACKED_EVENT_FLAG_DESC, 2), 40) << "without the feature: enabled";
  // With it: once in two laps of five, and the first after a start.
  EXPECT_EQ(calls(true, VRING_PACKED_EVENT_FLAG_DESC, 2), 1 + 4);
  EXPECT_EQ(calls(true, VRING_PACKED_EVENT_FLAG_DESC, 2 | 0x8000), 1 + 4);
  EXPECT_EQ(calls(true, VRING_PACKED_EVENT_FLAG_DESC, 5), 1) << "an offset outside the ring";
  EXPECT_EQ(calls(true, VRING_PACKED_EVENT_FLAG_DESC, 0x7fff), 1);
}

TEST_F(HostilePackedRing, H220_rings_that_are_no_power_of_two_wrap_where_they_end) {
  for (const uint32_t size : {3U, 7U, 300U}) {
    HostilePacked rig(guest, of_size(size));
    EXPECT_EQ(calls_of(rig, VRING_PACKED_EVENT_FLAG_ENABLE, 0, 5 * size + 1), static_cast<int>(5 * size + 1));
    EXPECT_EQ(rig.device.base(), (RingBase{.avail = 1, .used = 1, .avail_wrap = false, .used_wrap = false}));
  }
}

TEST_F(HostilePackedRing, H221_wrap_counters_that_contradict_the_ring_bring_no_progress_and_no_harm) {
  for (const bool wrap : {true, false}) {
    Shape shape = of_size(4);
    shape.base = {.avail = 2, .used = 2, .avail_wrap = wrap, .used_wrap = wrap};
    HostilePacked rig(guest, shape);
    for (uint16_t i = 0; i < 4; ++i) rig.descriptors()[i] = {rig.data, 8, i, wrap ? even_lap : odd_lap};
    EXPECT_EQ(rig.failure(), "nothing");
    EXPECT_FALSE(rig.device.enable_kicks());
  }
}

TEST_F(HostilePackedRing, a_base_with_entries_in_flight_leaves_room_for_the_others_only) {
  Shape shape = of_size(4);
  shape.base = {.avail = 3, .used = 1};
  HostilePacked rig(guest, shape);
  for (const uint16_t i : {3, 0, 1}) rig.descriptors()[i] = {rig.data, 8, i, i == 3 ? odd_lap : even_lap};
  Chain first = rig.device.pop();
  Chain second = rig.device.pop();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(rig.failure(), "nothing");
  rig.device.push_used(std::move(first), 0);
  (void)rig.device.publish();
  EXPECT_EQ(rig.descriptors()[1].flags, used_odd);
  rig.device.push_used(std::move(second), 0);
  EXPECT_EQ(rig.device.base(), (RingBase{.avail = 1, .used = 3, .avail_wrap = false}));
}

TEST_F(HostilePackedRing, chains_before_a_bad_one_are_served_first) {
  HostilePacked rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, 0, odd_lap};
  rig.descriptors()[1] = {rig.data + 16, 8, 1, odd_lap};
  rig.descriptors()[2] = {nowhere, 8, 2, odd_lap};
  EXPECT_EQ(pop(rig), "0+8 | ");
  EXPECT_EQ(rig.device.base().avail, 1) << "what was looked at ahead does not count";
  EXPECT_EQ(pop(rig), "16+8 | ");
  EXPECT_EQ(rig.failure(), "descriptor points outside the memory table");
}

}  // namespace
}  // namespace ringway::ring
