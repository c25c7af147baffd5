// The device half of a split ring against drivers that break the rules; numbers are those of
// docs/robustness.md.
#include "ringway/ring/split.h"

#include <gtest/gtest.h>
#include <linux/virtio_config.h>

#include <numeric>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::Guest;
using test::HostileSplit;
using test::must;
using test::pieces_of;
using test::Shape;

constexpr uint16_t next = VRING_DESC_F_NEXT;
constexpr uint16_t write = VRING_DESC_F_WRITE;
constexpr uint16_t indirect = VRING_DESC_F_INDIRECT;
constexpr uint64_t nowhere = 0xdead'0000'0000;

Shape of_size(uint32_t size, const Format& format = {.indirect = true}) {
  return {.size = size, .format = format};
}

class HostileSplitRing : public testing::Test {
 protected:
  // The pieces of the next chain, which is then used.
  static std::string pop(HostileSplit& rig) {
    Chain chain = rig.device.pop();
    if (!chain) return "nothing";
    std::string pieces = pieces_of(chain, rig.guest, rig.data);
    rig.device.push_used(std::move(chain), 0);
    return pieces;
  }
  Guest guest{uint64_t{8} << 20};
};

TEST_F(HostileSplitRing, H175_a_chain_that_loops_is_refused) {
  const std::vector<std::vector<uint16_t>> loops = {{0},          {1, 0},       {0, 1},
                                                    {1, 2, 3, 0}, {1, 2, 3, 2}, {1, 2, 3, 3}};
  for (const auto& links : loops) {
    HostileSplit rig(guest, of_size(4));
    for (size_t i = 0; i < links.size(); ++i) rig.descriptors()[i] = {rig.data, 8, next, links[i]};
    rig.offer({0});
    EXPECT_EQ(rig.failure(), "descriptor chain loops");
  }
}

TEST_F(HostileSplitRing, H175_a_loop_inside_an_indirect_table_is_refused) {
  HostileSplit rig(guest, of_size(4));
  for (uint16_t i = 0; i < 20; ++i)
    rig.table(0)[i] = {rig.data, 1, next, static_cast<uint16_t>((i + 1) % 20)};
  rig.descriptors()[0] = {rig.data, 20 * 16, indirect, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "descriptor chain loops");
}

TEST_F(HostileSplitRing, H176_a_chain_as_long_as_the_ring_is_served) {
  HostileSplit rig(guest, of_size(4));
  for (uint16_t i = 0; i < 4; ++i) {
    rig.descriptors()[i] = {rig.data + 16 * i, 8, i < 3 ? next : uint16_t{0}, static_cast<uint16_t>(i + 1)};
  }
  rig.offer({0});
  EXPECT_EQ(pop(rig), "0+8 16+8 32+8 48+8 | ");
}

TEST_F(HostileSplitRing, H176_an_indirect_table_may_have_1024_entries_or_the_rings_size_and_not_one_more) {
  for (const auto& [size, most] : {std::pair{4U, 1024U}, std::pair{1024U, 1024U}, std::pair{4096U, 4096U}}) {
    for (const uint32_t entries : {most, most + 1}) {
      HostileSplit rig(guest, of_size(size));
      const uint64_t at = guest.allocate(uint64_t{entries} * 16, 16);
      auto* const table = reinterpret_cast<vring_desc*>(guest.at(at));
      for (uint32_t i = 0; i < entries; ++i) {
        const bool is_last = i + 1 == entries;
        table[i] = {rig.data + 2 * (i % 1024), 1, is_last ? uint16_t{0} : next, static_cast<uint16_t>(i + 1)};
      }
      rig.descriptors()[0] = {at, entries * 16, indirect, 0};
      rig.offer({0});
      if (entries > most) {
        EXPECT_EQ(rig.failure(), "indirect table has too many entries");
        continue;
      }
      Chain chain = rig.device.pop();
      ASSERT_TRUE(chain);
      EXPECT_EQ(chain.reader().pieces().size(), most);
      rig.device.push_used(std::move(chain), 0);
    }
  }
}

TEST_F(HostileSplitRing, H176_too_many_pieces_break_the_ring_however_they_come) {
  HostileSplit rig(guest, of_size(4));
  // One direct piece and then a table that is as long as a table may be.
  const uint64_t at = guest.allocate(1024UL * 16, 16);
  auto* const table = reinterpret_cast<vring_desc*>(guest.at(at));
  for (uint16_t i = 0; i < 1024; ++i) {
    table[i] = {rig.data + 2UL * i, 1, i == 1023 ? uint16_t{0} : next, static_cast<uint16_t>(i + 1)};
  }
  rig.descriptors()[0] = {rig.data + 100, 1, next, 1};
  rig.descriptors()[1] = {at, 1024 * 16, indirect, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "descriptor chain has too many pieces");
}

TEST_F(HostileSplitRing, H178_an_available_index_beyond_the_ring_or_backwards_is_refused) {
  for (const uint16_t jump : {5, 6, 1000, 32768, 65535}) {
    HostileSplit rig(guest, of_size(4));
    rig.avail()->idx = jump;
    EXPECT_EQ(rig.failure(), "available index moved by more than the ring size") << jump;
  }
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, 0, 0};
  rig.offer({0, 0});
  EXPECT_EQ(pop(rig), "0+8 | ");
  rig.avail()->idx = 0;
  rig.restart();
  EXPECT_EQ(rig.failure(), "nothing");
}

TEST_F(HostileSplitRing, H178_an_index_that_goes_back_behind_what_was_popped_is_refused) {
  HostileSplit rig(guest, of_size(4));
  for (uint16_t i = 0; i < 3; ++i) rig.descriptors()[i] = {rig.data, 8, 0, 0};
  rig.offer({0, 1, 2});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(pop(rig), "0+8 | ");
  rig.avail()->idx = 2;
  EXPECT_EQ(rig.failure(), "available index moved by more than the ring size");
}

TEST_F(HostileSplitRing, H179_the_index_wraps_in_rings_of_any_size) {
  for (const uint32_t size : {1U, 2U, 32768U}) {
    Shape shape = of_size(size);
    shape.base = {.avail = 65530, .used = 65530};
    HostileSplit rig(guest, shape);
    for (uint32_t i = 0; i < 12; ++i) {
      const auto head = static_cast<uint16_t>(i % std::min(size, 4U));
      rig.descriptors()[head] = {rig.data + 16 * i, 8, 0, 0};
      rig.offer({head});
      EXPECT_EQ(pop(rig), std::to_string(16 * i) + "+8 | ");
      (void)rig.device.publish();
      EXPECT_EQ(rig.used()->idx, static_cast<uint16_t>(65530 + i + 1));
      EXPECT_EQ(rig.used()->ring[(65530 + i) % size].id, head);
    }
    EXPECT_EQ(rig.device.base().avail, 6);
  }
}

TEST_F(HostileSplitRing, H181_a_head_that_is_offered_twice_in_a_batch_is_refused) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[2] = {rig.data, 8, 0, 0};
  rig.offer({2, 2});
  Chain first = rig.device.pop();
  ASSERT_TRUE(first);
  EXPECT_EQ(rig.failure(), "available head is in flight already");
  rig.device.abandon(std::move(first));
}

TEST_F(HostileSplitRing, H181_a_head_that_is_offered_again_while_in_flight_is_refused) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[2] = {rig.data, 8, 0, 0};
  rig.offer({2});
  Chain first = rig.device.pop();
  ASSERT_TRUE(first);
  EXPECT_EQ(rig.failure(), "nothing");
  rig.offer({2});
  EXPECT_EQ(rig.failure(), "available head is in flight already");
  rig.device.abandon(std::move(first));
}

TEST_F(HostileSplitRing, H181_a_head_may_be_offered_again_once_it_was_used) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[2] = {rig.data, 8, 0, 0};
  for (int i = 0; i < 10; ++i) {
    rig.offer({2});
    EXPECT_EQ(pop(rig), "0+8 | ");
  }
}

TEST_F(HostileSplitRing, H182_two_chains_may_share_a_descriptor) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, next, 2};
  rig.descriptors()[1] = {rig.data + 16, 8, next, 2};
  rig.descriptors()[2] = {rig.data + 32, 8, write, 0};
  rig.offer({0, 1});
  Chain first = rig.device.pop();
  Chain second = rig.device.pop();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(pieces_of(first, guest, rig.data), "0+8 | 32+8");
  EXPECT_EQ(pieces_of(second, guest, rig.data), "16+8 | 32+8");
  (void)first.writer().skip(4);  // eats of its own list only
  EXPECT_EQ(second.writer().remaining(), 8U);
  rig.device.push_used(std::move(first), 0);
  rig.device.push_used(std::move(second), 0);
}

TEST_F(HostileSplitRing, H184_an_indirect_descriptor_without_the_feature_is_refused) {
  HostileSplit rig(guest, of_size(4, {}));
  rig.table(0)[0] = {rig.data, 8, 0, 0};
  rig.descriptors()[0] = {rig.data, 16, indirect, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "indirect descriptor without VIRTIO_F_INDIRECT_DESC");
}

TEST_F(HostileSplitRing, H185_an_indirect_descriptor_in_an_indirect_table_is_refused) {
  HostileSplit rig(guest, of_size(4));
  rig.table(0)[0] = {rig.data, 8, next, 1};
  rig.table(0)[1] = {rig.data, 16, indirect, 0};
  rig.descriptors()[0] = {rig.data, 32, indirect, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "indirect descriptor inside an indirect table");
}

TEST_F(HostileSplitRing, an_indirect_descriptor_with_a_next_one_is_refused) {
  HostileSplit rig(guest, of_size(4));
  rig.table(0)[0] = {rig.data, 8, 0, 0};
  rig.descriptors()[0] = {rig.data, 16, indirect | next, 1};
  rig.descriptors()[1] = {rig.data, 8, 0, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "indirect descriptor is linked with a next one");
}

TEST_F(HostileSplitRing, H187_direct_descriptors_followed_by_an_indirect_one_are_served) {
  HostileSplit rig(guest, of_size(4));
  rig.table(256)[0] = {rig.data + 32, 8, next, 2};
  rig.table(256)[2] = {rig.data + 48, 8, write, 0};
  rig.descriptors()[3] = {rig.data, 8, next, 1};
  rig.descriptors()[1] = {rig.data + 16, 8, next, 0};
  rig.descriptors()[0] = {rig.data + 256, 48, indirect, 0};
  rig.offer({3});
  EXPECT_EQ(pop(rig), "0+8 16+8 32+8 | 48+8");
}

TEST_F(HostileSplitRing, H188_the_write_flag_of_an_indirect_descriptor_is_ignored) {
  HostileSplit rig(guest, of_size(4));
  rig.table(256)[0] = {rig.data, 8, next, 1};
  rig.table(256)[1] = {rig.data + 16, 8, write, 0};
  rig.descriptors()[0] = {rig.data + 256, 32, indirect | write, 0};
  rig.offer({0});
  EXPECT_EQ(pop(rig), "0+8 | 16+8");
}

TEST_F(HostileSplitRing, H190_an_indirect_table_may_lie_at_any_address) {
  for (uint64_t shift = 0; shift < 16; ++shift) {
    HostileSplit rig(guest, of_size(4));
    const std::array<vring_desc, 2> table = {{{rig.data, 8, next, 1}, {rig.data + 16, 8, write, 0}}};
    std::memcpy(guest.at(rig.data + 256 + shift), table.data(), sizeof table);
    rig.descriptors()[0] = {rig.data + 256 + shift, 32, indirect, 0};
    rig.offer({0});
    EXPECT_EQ(pop(rig), "0+8 | 16+8") << shift;
  }
}

TEST_F(HostileSplitRing, H191_an_indirect_table_outside_memory_is_refused) {
  const uint64_t end = Guest::base + guest.size();
  for (const uint64_t address :
       {uint64_t{0}, nowhere, end, end - 16, Guest::base - 16, UINT64_MAX - 15, UINT64_MAX}) {
    HostileSplit rig(guest, of_size(4));
    rig.descriptors()[0] = {address, 32, indirect, 0};
    rig.offer({0});
    EXPECT_EQ(rig.failure(), "descriptor points outside the memory table") << address;
  }
}

// Two regions that are neighbours for the guest and lie apart for us.
class TwoRegions : public testing::Test {
 protected:
  static constexpr uint64_t border = Guest::base + 0x10'0000;
  TwoRegions() {
    low_ = region(Guest::base, 0x10'0000);
    high_ = region(border, 0x10'0000);
    map = must(memory::Map::of({low_, high_}));
  }
  [[nodiscard]] std::byte* at(uint64_t guest) const {
    return guest < border ? low_->data() + (guest - Guest::base) : high_->data() + (guest - border);
  }
  void put(uint64_t guest, const void* from, size_t length) const {
    for (size_t i = 0; i < length; ++i) *at(guest + i) = static_cast<const std::byte*>(from)[i];
  }
  std::shared_ptr<const memory::Map> map;

 private:
  static std::shared_ptr<const memory::Region> region(uint64_t guest, uint64_t size) {
    return must(memory::Region::open({{guest}, size, {guest * 16}, 0}, test::make_memfd(size)));
  }
  std::shared_ptr<const memory::Region> low_;
  std::shared_ptr<const memory::Region> high_;
};

TEST_F(TwoRegions, H191_an_indirect_table_and_its_buffers_may_cross_a_region_border) {
  Guest guest(1 << 20);
  for (uint64_t before = 1; before < 48; ++before) {
    // The ring lies in the guest's memory; what it points to in the two regions, which are ours from now on.
    HostileSplit rig(guest, of_size(4));
    rig.device.set_view(memory::View(map));
    const std::array<vring_desc, 3> table = {
        {{Guest::base + 64, 8, next, 1}, {border - 4, 8, next, 2}, {border + 64, 8, write, 0}}};
    const uint64_t address = border - before - 256;  // near the border first, then across it
    for (const uint64_t place : {address, border - before}) {
      if (place == border - before && before <= 4) continue;  // would overwrite the buffer
      put(place, table.data(), sizeof table);
      rig.descriptors()[0] = {place, sizeof table, indirect, 0};
      rig.offer({0});
      Chain chain = rig.device.pop();
      ASSERT_TRUE(chain) << before;
      ASSERT_EQ(chain.reader().pieces().size(), 3U);
      EXPECT_EQ(chain.reader().pieces()[1].iov_base, at(border - 4));
      EXPECT_EQ(chain.reader().pieces()[1].iov_len, 4U);
      EXPECT_EQ(chain.reader().pieces()[2].iov_base, at(border));
      EXPECT_EQ(chain.writer().pieces()[0].iov_base, at(border + 64));
      rig.device.push_used(std::move(chain), 0);
    }
  }
}

TEST_F(HostileSplitRing, H193_zero_length_descriptors_are_empty_pieces) {
  const auto lengths = std::vector<std::array<uint32_t, 3>>{{0, 8, 8}, {8, 0, 8}, {8, 8, 0}, {0, 0, 0}};
  const auto expected = std::vector<std::string>{"16+8 | 32+8", "0+8 | 32+8", "0+8 16+8 | ", "| "};
  for (size_t i = 0; i < lengths.size(); ++i) {
    HostileSplit rig(guest, of_size(4));
    rig.descriptors()[0] = {rig.data, lengths[i][0], next, 1};
    rig.descriptors()[1] = {rig.data + 16, lengths[i][1], next, 2};
    rig.descriptors()[2] = {rig.data + 32, lengths[i][2], write, 0};
    rig.offer({0});
    EXPECT_EQ(pop(rig), expected[i]);
  }
}

TEST_F(HostileSplitRing, H193_a_chain_of_32768_empty_descriptors_is_an_empty_chain) {
  HostileSplit rig(guest, of_size(32768));
  for (uint32_t i = 0; i < 32768; ++i) {
    rig.descriptors()[i] = {rig.data, 0, i < 32767 ? next : uint16_t{0}, static_cast<uint16_t>(i + 1)};
  }
  rig.offer({0});
  EXPECT_EQ(pop(rig), "| ");
}

TEST_F(HostileSplitRing, H193_the_address_of_an_empty_descriptor_must_still_be_in_memory) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {nowhere, 0, 0, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "descriptor points outside the memory table");
}

TEST_F(HostileSplitRing, H194_a_buffer_that_wraps_or_leaves_memory_is_refused) {
  const uint64_t end = Guest::base + guest.size();
  const std::vector<std::pair<uint64_t, uint32_t>> buffers = {
      {UINT64_MAX, 2},      {UINT64_MAX - 7, 16}, {end - 8, 9}, {end, 1},
      {Guest::base - 1, 2}, {nowhere, 8},         {0, 1}};
  for (const auto& [address, length] : buffers) {
    for (const uint16_t flags : {uint16_t{0}, write}) {
      HostileSplit rig(guest, of_size(4));
      rig.descriptors()[0] = {address, length, flags, 0};
      rig.offer({0});
      EXPECT_EQ(rig.failure(), "descriptor points outside the memory table") << address;
    }
  }
}

TEST(HugeSplitRing, H196_a_chain_of_4_gib_is_served_and_one_byte_more_is_refused) {
  Guest guest((uint64_t{4} << 30) + 4096);  // sparse
  for (const uint32_t surplus : {0U, 1U}) {
    HostileSplit rig(guest, of_size(4));
    rig.descriptors()[0] = {rig.data, 0x8000'0000, next, 1};
    rig.descriptors()[1] = {rig.data, 0x7fff'ffff, write | next, 2};
    rig.descriptors()[2] = {rig.data, 1 + surplus, write, 0};
    rig.offer({0});
    if (surplus > 0) {
      EXPECT_EQ(rig.failure(), "descriptor chain is longer than 4 GiB");
      continue;
    }
    Chain chain = rig.device.pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain.reader().remaining() + chain.writer().remaining(), uint64_t{1} << 32);
    rig.device.push_used(std::move(chain), 0);
  }
}

TEST_F(HostileSplitRing, H197_a_readable_descriptor_behind_a_writable_one_is_refused) {
  for (const uint32_t length : {0U, 8U}) {
    HostileSplit rig(guest, of_size(4));
    rig.descriptors()[0] = {rig.data, length, write | next, 1};
    rig.descriptors()[1] = {rig.data + 16, length, 0, 0};
    rig.offer({0});
    EXPECT_EQ(rig.failure(), "device-readable descriptor behind a device-writable one");
  }
}

TEST_F(HostileSplitRing, H199_H200_descriptors_that_change_after_the_pop_change_nothing) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, next, 1};
  rig.descriptors()[1] = {rig.data + 16, 8, write, 0};
  rig.descriptors()[2] = {rig.data + 32, 8, 0, 0};
  rig.offer({0, 2});
  Chain chain = rig.device.pop();
  ASSERT_TRUE(chain);
  rig.descriptors()[0] = {nowhere, 0xffff'ffff, write, 3};
  rig.descriptors()[1] = {nowhere, 0xffff'ffff, 0, 3};
  EXPECT_EQ(pieces_of(chain, guest, rig.data), "0+8 | 16+8");
  rig.device.push_used(std::move(chain), 0);
}

TEST_F(HostileSplitRing, H203_a_buffer_over_the_ring_itself_harms_only_that_ring) {
  HostileSplit victim(guest, of_size(4));
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.layout.area, static_cast<uint32_t>(rig.data - rig.layout.area), write, 0};
  rig.offer({0});
  Chain chain = rig.device.pop();
  ASSERT_TRUE(chain);
  Writer writer = chain.writer();
  const std::vector<std::byte> garbage(writer.remaining(), std::byte{0xa5});
  ASSERT_TRUE(writer.write(garbage));
  rig.device.push_used(std::move(chain), 0);
  (void)rig.device.publish();
  EXPECT_EQ(rig.failure(), "available index moved by more than the ring size");
  victim.descriptors()[0] = {victim.data, 8, 0, 0};
  victim.offer({0});
  EXPECT_EQ(pop(victim), "0+8 | ");
}

TEST_F(HostileSplitRing, H205_what_the_driver_writes_into_the_used_ring_is_not_read_back) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, 0, 0};
  for (uint16_t i = 1; i <= 6; ++i) {
    rig.offer({0});
    std::memset(static_cast<void*>(rig.used()), 0x5a, 4 + 8 * 4);
    EXPECT_EQ(pop(rig), "0+8 | ");
    (void)rig.device.publish();
    EXPECT_EQ(rig.used()->idx, i);
    EXPECT_EQ(rig.used()->ring[(i - 1) % 4].id, 0U);
    EXPECT_EQ(rig.used()->ring[i % 4].id, 0x5a5a'5a5aU) << "wrote more than it used";
  }
}

TEST_F(HostileSplitRing, H206_the_base_decides_where_used_entries_go_and_not_the_used_index) {
  Shape shape = of_size(4);
  shape.base = {.avail = 7, .used = 7};
  HostileSplit rig(guest, shape);
  rig.used()->idx = 1000;
  rig.descriptors()[0] = {rig.data, 8, 0, 0};
  rig.offer({0});
  EXPECT_EQ(pop(rig), "0+8 | ");
  (void)rig.device.publish();
  EXPECT_EQ(rig.used()->idx, 8);
  EXPECT_EQ(rig.device.base(), (RingBase{.avail = 8, .used = 8}));
}

TEST_F(HostileSplitRing, H208_a_used_event_that_is_never_reached_costs_calls_and_nothing_else) {
  HostileSplit rig(guest, of_size(4, {.event_idx = true}));
  rig.descriptors()[0] = {rig.data, 8, 0, 0};
  int calls = 0;
  for (int i = 0; i < 100; ++i) {
    rig.offer({0});
    rig.avail()->ring[4] = static_cast<uint16_t>(rig.avail_index + 1000);
    EXPECT_EQ(pop(rig), "0+8 | ");
    if (rig.device.publish()) ++calls;
  }
  EXPECT_EQ(calls, 1) << "the first one after a start";
}

TEST_F(HostileSplitRing, H209_a_ring_of_one_entry_works) {
  HostileSplit rig(guest, of_size(1));
  for (uint64_t i = 0; i < 5; ++i) {
    rig.descriptors()[0] = {rig.data + i, 8, write, 0};
    rig.offer({0});
    EXPECT_EQ(pop(rig), "| " + std::to_string(i) + "+8");
    EXPECT_EQ(rig.failure(), "nothing");
  }
  rig.descriptors()[0] = {rig.data, 8, next, 0};
  rig.offer({0});
  EXPECT_EQ(rig.failure(), "descriptor chain loops");
}

TEST_F(HostileSplitRing, H082_a_base_too_far_from_the_available_index_breaks_the_ring) {
  for (const uint16_t index : {uint16_t{5}, uint16_t{65535}, uint16_t{40000}}) {
    HostileSplit rig(guest, of_size(4));
    rig.avail()->idx = index;
    rig.restart();
    EXPECT_EQ(rig.failure(), "available index moved by more than the ring size");
  }
}

TEST_F(HostileSplitRing, heads_and_next_indices_outside_the_table_are_refused) {
  for (const uint16_t index : {uint16_t{4}, uint16_t{5}, uint16_t{0x8000}, uint16_t{0xffff}}) {
    HostileSplit head(guest, of_size(4));
    head.offer({index});
    EXPECT_EQ(head.failure(), "available head is not in the descriptor table");
    HostileSplit link(guest, of_size(4));
    link.descriptors()[0] = {link.data, 8, next, index};
    link.offer({0});
    EXPECT_EQ(link.failure(), "next descriptor is not in its table");
    HostileSplit inner(guest, of_size(4));
    inner.table(256)[0] = {inner.data, 8, next, index};
    inner.descriptors()[0] = {inner.data + 256, 64, indirect, 0};
    inner.offer({0});
    EXPECT_EQ(inner.failure(), "next descriptor is not in its table");
  }
}

TEST_F(HostileSplitRing, an_indirect_tables_length_is_a_positive_multiple_of_16) {
  for (const uint32_t length : {0U, 1U, 8U, 15U, 17U, 40U, 0xffff'ffffU}) {
    HostileSplit rig(guest, of_size(4));
    rig.table(256)[0] = {rig.data, 8, 0, 0};
    rig.descriptors()[0] = {rig.data + 256, length, indirect, 0};
    rig.offer({0});
    EXPECT_EQ(rig.failure(), "indirect table's length is not a positive multiple of 16");
  }
}

TEST_F(HostileSplitRing, chains_before_a_bad_one_are_served_first) {
  HostileSplit rig(guest, of_size(4));
  rig.descriptors()[0] = {rig.data, 8, 0, 0};
  rig.descriptors()[1] = {rig.data + 16, 8, 0, 0};
  rig.offer({0, 1, 9});
  EXPECT_EQ(pop(rig), "0+8 | ");
  EXPECT_EQ(rig.device.base().avail, 1) << "what was looked at ahead does not count";
  EXPECT_EQ(pop(rig), "16+8 | ");
  EXPECT_EQ(rig.failure(), "available head is not in the descriptor table");
  EXPECT_EQ(rig.device.base().avail, 2);
}

TEST_F(HostileSplitRing, big_endian_rings_are_swapped_everywhere) {
  HostileSplit rig(guest, of_size(4, {.indirect = true, .event_idx = true, .big_endian = true}));
  const auto put = [](auto& field, auto value) {
    field = std::byteswap(static_cast<std::decay_t<decltype(field)>>(value));
  };
  const auto describe = [&](vring_desc& to, uint64_t address, uint32_t length, uint16_t flags,
                            uint16_t link) {
    put(to.addr, address);
    put(to.len, length);
    put(to.flags, flags);
    put(to.next, link);
  };
  describe(rig.descriptors()[3], rig.data, 8, next, 1);
  describe(rig.descriptors()[1], rig.data + 256, 32, indirect, 0);
  describe(rig.table(256)[0], rig.data + 16, 0x102, next, 1);
  describe(rig.table(256)[1], rig.data + 512, 0x304, write, 0);
  put(rig.avail()->ring[0], 3);
  put(rig.avail()->ring[4], 1);  // used_event: not the first
  put(rig.avail()->idx, 1);
  Chain chain = rig.device.pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(pieces_of(chain, guest, rig.data), "0+8 16+258 | 512+772");
  rig.device.push_used(std::move(chain), 0x0a0b0c0d);
  EXPECT_TRUE(rig.device.publish());
  EXPECT_EQ(rig.used()->idx, 0x0100);
  EXPECT_EQ(rig.used()->ring[0].id, 0x0300'0000U);
  EXPECT_EQ(rig.used()->ring[0].len, 0x0d0c0b0aU);
  EXPECT_FALSE(rig.device.enable_kicks());
  uint16_t avail_event = 0;
  std::memcpy(&avail_event, guest.at(rig.layout.device + 4 + 8 * 4), 2);
  EXPECT_EQ(avail_event, 0x0100);
}

}  // namespace
}  // namespace ringway::ring
