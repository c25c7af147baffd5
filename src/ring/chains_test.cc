// Chains in flight: memory snapshots, IOTLB misses, long chains, and what a ring costs.
#include "ringway/ring/chains.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <random>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using memory::Access;
using memory::IotlbEntry;
using memory::IotlbTable;
using test::Device;
using test::Guest;
using test::Layout;
using test::must;
using test::pieces_of;
using test::Rig;
using test::Shape;

class ChainsOf : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] Shape shape(uint32_t size, uint32_t table_entries = 0) const {
    return {.size = size, .format = {.packed = GetParam(), .indirect = true}, .table_entries = table_entries};
  }
  Guest guest{uint64_t{8} << 20};
};

INSTANTIATE_TEST_SUITE_P(formats, ChainsOf, testing::Bool(),
                         [](const auto& test) { return test.param ? "packed" : "split"; });

// A second, equal map of the same guest, so that an old one can be seen to end.
std::shared_ptr<const memory::Map> new_map() {
  const uint64_t bytes = uint64_t{8} << 20;
  auto region =
      must(memory::Region::open({{Guest::base}, bytes, {Guest::front_end}, 0}, test::make_memfd(bytes)));
  return must(memory::Map::of({std::move(region)}));
}

TEST_P(ChainsOf, a_chain_in_flight_keeps_the_memory_that_it_points_into) {
  Rig rig(guest, shape(8));
  const Buffer buffer{{guest.allocate(64)}, 8};
  std::vector<std::weak_ptr<const memory::Map>> maps;
  std::vector<Chain> chains;
  for (int i = 0; i < 6; ++i) {
    auto map = new_map();
    maps.emplace_back(map);
    rig.device.set_view(memory::View(std::move(map)));
    if (i == 3) continue;  // nothing is popped from this one
    ASSERT_TRUE(rig.front.add({buffer}, {}));
    (void)rig.front.publish();
    chains.push_back(rig.device.pop());
    ASSERT_TRUE(chains.back());
  }
  const auto alive = [&] {
    std::string text;
    for (const auto& map : maps) text += map.expired() ? '-' : '+';
    return text;
  };
  EXPECT_EQ(alive(), "+++-++");
  rig.device.push_used(std::move(chains[1]), 0);
  EXPECT_EQ(alive(), "+-+-++");
  rig.device.push_used(std::move(chains[0]), 0);
  rig.device.push_back(std::move(chains[4]));
  EXPECT_EQ(alive(), "--+-++") << "the current one stays";
  rig.device.set_view(guest.view());
  EXPECT_EQ(alive(), "--+-+-");
  rig.device.abandon(std::move(chains[2]));
  rig.device.abandon(std::move(chains[3]));
  EXPECT_EQ(alive(), "------");
}

TEST_P(ChainsOf, what_was_looked_at_ahead_is_translated_again_in_new_memory) {
  Rig rig(guest, shape(8));
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(rig.front.add({{{Guest::base + 4096 * i}, 8}}, {}));
  (void)rig.front.publish();
  Chain first = rig.device.pop();
  auto map = new_map();
  rig.device.set_view(memory::View(map));
  for (uint64_t i = 1; i < 4; ++i) {
    Chain chain = rig.device.pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain.reader().pieces()[0].iov_base, map->regions()[0]->data() + 4096 * i);
    rig.device.push_used(std::move(chain), 0);
  }
  EXPECT_EQ(first.reader().pieces()[0].iov_base, guest.data());
  rig.device.push_used(std::move(first), 0);
}

TEST_P(ChainsOf, an_iotlb_update_alone_keeps_no_second_snapshot) {
  Rig rig(guest, shape(4));
  std::weak_ptr<const IotlbTable> old;
  Chain chain;
  for (int i = 0; i < 2; ++i) {
    const IotlbEntry entry{.iova = {0x1000}, .size = 0x1000, .front_end = {Guest::front_end}};
    auto table = must(IotlbTable::empty()->with(entry));
    if (i == 0) old = table;
    rig.device.set_view(memory::View(guest.map(), std::move(table)));
    if (i > 0) continue;
    ASSERT_TRUE(rig.front.add({{{0x1000}, 8}}, {}));
    (void)rig.front.publish();
    chain = rig.device.pop();
    ASSERT_TRUE(chain);
  }
  EXPECT_TRUE(old.expired());
  rig.device.push_used(std::move(chain), 0);
}

TEST_P(ChainsOf, an_iotlb_miss_consumes_nothing_and_says_what_to_ask_for) {
  Rig rig(guest, shape(8));
  auto table =
      must(IotlbTable::empty()->with({.iova = {0x1000}, .size = 0x1000, .front_end = {Guest::front_end}}));
  rig.device.set_view(memory::View(guest.map(), table));
  ASSERT_TRUE(rig.front.add({{{0x1800}, 8}}, {}));
  ASSERT_TRUE(rig.front.add({{{0x1ff8}, 8}}, {{{0x1ff0}, 0x20}}));
  (void)rig.front.publish();
  Chain first = rig.device.pop();
  ASSERT_TRUE(first);
  EXPECT_FALSE(rig.device.missing());
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(rig.device.pop());
    ASSERT_TRUE(rig.device.missing());
    EXPECT_EQ(rig.device.missing()->address.value, 0x2000U);
    EXPECT_EQ(rig.device.missing()->access, Access::write);
  }
  EXPECT_EQ(rig.device.base().avail, 1) << "nothing was consumed";
  const uint64_t elsewhere = Guest::front_end + 0x10000;
  table = must(table->with({.iova = {0x2000}, .size = 0x1000, .front_end = {elsewhere}}));
  rig.device.set_view(memory::View(guest.map(), table));
  EXPECT_FALSE(rig.device.missing());
  Chain second = rig.device.pop();
  ASSERT_TRUE(second);
  EXPECT_EQ(pieces_of(second, guest, Guest::base), "4088+8 | 4080+16 65536+16");
  rig.device.push_used(std::move(first), 0);
  rig.device.push_used(std::move(second), 0);
}

TEST_P(ChainsOf, an_iotlb_entry_without_the_permission_is_a_miss) {
  Rig rig(guest, shape(8));
  const IotlbEntry entry{
      .iova = {0x1000}, .size = 0x1000, .front_end = {Guest::front_end}, .access = Access::read};
  rig.device.set_view(memory::View(guest.map(), must(IotlbTable::empty()->with(entry))));
  ASSERT_TRUE(rig.front.add({{{0x1000}, 8}}, {{{0x1800}, 8}}));
  (void)rig.front.publish();
  EXPECT_FALSE(rig.device.pop());
  ASSERT_TRUE(rig.device.missing());
  EXPECT_EQ(rig.device.missing()->address.value, 0x1800U);
}

TEST_P(ChainsOf, an_indirect_table_can_miss_too_and_can_be_scattered) {
  Layout layout(guest, shape(4));
  Device device(must(start(layout.ring_config(), guest.view())));
  // A table of 768 entries in three pages that lie apart, misaligned, so that entries straddle them.
  constexpr uint32_t entries = 768;
  std::vector<vring_desc> split_table(entries);
  for (uint32_t i = 0; i < entries; ++i) {
    const bool is_last = i + 1 == entries;
    split_table[i] = {0x1000 + 2 * i, 1, is_last ? uint16_t{0} : uint16_t{VRING_DESC_F_NEXT},
                      static_cast<uint16_t>(i + 1)};
    if (GetParam()) std::swap(split_table[i].flags, split_table[i].next);
    if (GetParam()) split_table[i].next = 0;
  }
  constexpr uint64_t table_at = 0x10'0008;
  const auto page_of = [](uint64_t iova) { return Guest::front_end + 0x20'0000 + (iova - 0x10'0000) * 2; };
  const auto* bytes = reinterpret_cast<const std::byte*>(split_table.data());
  for (uint64_t i = 0; i < entries * 16; ++i) {
    const uint64_t iova = table_at + i;
    *guest.at(page_of(iova & ~0xfffULL) - Guest::front_end + Guest::base + (iova & 0xfff)) = bytes[i];
  }
  if (GetParam()) {
    reinterpret_cast<vring_packed_desc*>(guest.at(layout.desc))[0] = {table_at, entries * 16, 0,
                                                                      VRING_DESC_F_INDIRECT | test::odd_lap};
  } else {
    reinterpret_cast<vring_desc*>(guest.at(layout.desc))[0] = {table_at, entries * 16, VRING_DESC_F_INDIRECT,
                                                               0};
    reinterpret_cast<vring_avail*>(guest.at(layout.driver))->idx = 1;
  }
  auto table =
      must(IotlbTable::empty()->with({.iova = {0x1000}, .size = 0x1000, .front_end = {Guest::front_end}}));
  Chain chain;
  std::vector<uint64_t> asked;
  while (!chain) {
    device.set_view(memory::View(guest.map(), table));
    chain = device.pop();
    if (chain) break;
    ASSERT_TRUE(device.missing());
    const uint64_t iova = device.missing()->address.value;
    asked.push_back(iova);
    ASSERT_LE(asked.size(), 4U);
    table = must(
        table->with({.iova = {iova & ~0xfffULL}, .size = 0x1000, .front_end = {page_of(iova & ~0xfffULL)}}));
  }
  EXPECT_EQ(asked, (std::vector<uint64_t>{table_at, 0x10'1000, 0x10'2000, 0x10'3000}));
  ASSERT_EQ(chain.reader().pieces().size(), entries);
  for (uint32_t i = 0; i < entries; ++i) EXPECT_EQ(chain.reader().pieces()[i].iov_base, guest.data() + 2 * i);
  device.push_used(std::move(chain), 0);
}

TEST_P(ChainsOf, long_chains_keep_their_own_pieces) {
  Rig rig(guest, shape(64, 40));
  std::mt19937 random(1);
  struct Held {
    Chain chain;
    uint64_t first;
    uint32_t count;
  };
  std::vector<Held> held;
  for (uint32_t turn = 0; turn < 3000; ++turn) {
    const uint32_t count = 1 + random() % 40;
    const uint64_t first = Guest::base + 0x10'0000 + random() % 4096 * 64;
    std::vector<Buffer> buffers;
    for (uint32_t i = 0; i < count; ++i) buffers.push_back({{first + 16 * i}, 8});
    ASSERT_TRUE(rig.front.add(buffers, {}));
    (void)rig.front.publish();
    held.push_back({rig.device.pop(), first, count});
    ASSERT_TRUE(held.back().chain);
    if (held.size() < 50) continue;
    std::swap(held[random() % held.size()], held.back());
    const auto pieces = held.back().chain.reader().pieces();
    ASSERT_EQ(pieces.size(), held.back().count);
    for (uint32_t i = 0; i < held.back().count; ++i)
      ASSERT_EQ(pieces[i].iov_base, guest.at(held.back().first + 16 * i));
    rig.device.push_used(std::move(held.back().chain), 0);
    held.pop_back();
    (void)rig.device.publish();
    ASSERT_TRUE(rig.front.take_used());
  }
  for (Held& each : held) rig.device.abandon(std::move(each.chain));
}

TEST_P(ChainsOf, long_chains_in_a_huge_ring_wait_when_there_is_no_room_for_their_pieces) {
  Rig rig(guest, shape(32768, 8));
  std::vector<Buffer> buffers;
  for (uint64_t i = 0; i < 8; ++i) buffers.push_back({{Guest::base + 16 * i}, 8});
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(rig.front.add(buffers, {}));
  (void)rig.front.publish();
  std::vector<Chain> chains;
  while (Chain chain = rig.device.pop()) chains.push_back(std::move(chain));
  EXPECT_GE(chains.size(), 100U);
  EXPECT_LT(chains.size(), 300U);
  EXPECT_FALSE(rig.device.missing());
  EXPECT_TRUE(rig.device.enable_kicks()) << "there is more";
  uint32_t served = 0;
  while (!chains.empty()) {
    rig.device.push_used(std::move(chains.back()), 0);
    chains.pop_back();
    ++served;
    while (Chain chain = rig.device.pop()) chains.push_back(std::move(chain));
  }
  EXPECT_EQ(served, 300U);
}

TEST_P(ChainsOf, several_chains_can_be_given_back_in_reverse) {
  Rig rig(guest, shape(32));
  std::mt19937 random(7);
  uint32_t added = 0;
  uint32_t expected = 0;
  for (int turn = 0; turn < 2000; ++turn) {
    while (rig.front.add(std::vector<Buffer>(1 + added % 3, {{Guest::base}, 1 + added % 100}), {})) ++added;
    (void)rig.front.publish();
    std::vector<Chain> chains;
    for (uint32_t want = random() % 12; chains.size() < want;) {
      Chain chain = rig.device.pop();
      if (!chain) break;
      const uint32_t number = expected + static_cast<uint32_t>(chains.size());
      ASSERT_EQ(chain.reader().remaining(), (1 + number % 100) * (1 + number % 3));
      chains.push_back(std::move(chain));
    }
    const size_t keep = chains.empty() ? 0 : random() % (chains.size() + 1);
    for (; chains.size() > keep; chains.pop_back()) rig.device.push_back(std::move(chains.back()));
    expected += static_cast<uint32_t>(keep);
    for (Chain& chain : chains) rig.device.push_used(std::move(chain), 0);
    (void)rig.device.publish();
    while (rig.front.take_used()) {
    }
  }
  EXPECT_GT(expected, 1000U);
}

uint64_t resident_bytes() {
  uint64_t total = 0;
  uint64_t resident = 0;
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  EXPECT_EQ(std::fscanf(file, "%lu %lu", &total, &resident), 2);
  std::fclose(file);
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

TEST_P(ChainsOf, an_idle_ring_costs_little_memory) {
  Layout layout(guest, shape(256));
  std::vector<RingConfig> configs;
  for (int i = 0; i < 500; ++i) configs.push_back(layout.ring_config());
  std::vector<Ring> rings;
  rings.reserve(500);
  const uint64_t before = resident_bytes();
  for (RingConfig& config : configs) rings.push_back(must(start(std::move(config), guest.view())));
  const uint64_t after = resident_bytes();
  EXPECT_LT((after - before) / 500, 16384U);
}

}  // namespace
}  // namespace ringway::ring
