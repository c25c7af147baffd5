#include "ringway/device/port/mac_table.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "ringway/device/port/frames_test.h"
#include "ringway/device/port/rate_limit.h"

namespace ringway::port {
namespace {

using Learned = MacTable::Learned;
using test::station_mac;

TEST(MacTable, what_was_learned_is_found_in_its_vlan_only) {
  MacTable table({});
  EXPECT_EQ(table.learn(1, station_mac(7), 3, 0), Learned::fresh);
  EXPECT_EQ(table.learn(1, station_mac(7), 3, 0), Learned::known);
  EXPECT_EQ(table.find(1, station_mac(7), 0), 3);
  EXPECT_EQ(table.find(2, station_mac(7), 0), std::nullopt);
  EXPECT_EQ(table.find(1, station_mac(8), 0), std::nullopt);
}

TEST(MacTable, it_holds_many_addresses) {
  MacTable table({.limit = 16384});
  for (unsigned i = 0; i < 8192; ++i)
    ASSERT_EQ(table.learn(1, station_mac(i), i % 64, 0), Learned::fresh) << i;
  for (unsigned i = 0; i < 8192; ++i) ASSERT_EQ(table.find(1, station_mac(i), 0), i % 64);
  EXPECT_EQ(table.size(), 8192U);
}

// Each table draws its own seed, and none may be a bad one.
TEST(MacTable, it_takes_as_many_as_it_says_whatever_its_seed) {
  constexpr uint16_t limit = 1024;
  for (unsigned i = 0; i < 200; ++i) {
    MacTable table({.limit = limit, .stations = limit});
    for (uint16_t station = 0; station < limit; ++station)
      ASSERT_EQ(table.learn(1, station_mac(station), station, 0), Learned::fresh) << station;
    for (uint16_t station = 0; station < limit; ++station)
      ASSERT_EQ(table.find(1, station_mac(station), 0), station);
  }
}

TEST(MacTable, entries_age_unless_they_are_seen_again) {
  MacTable table({.limit = 64, .ageing = 10});
  table.learn(1, station_mac(1), 1, 0);
  table.learn(1, station_mac(2), 2, 0);
  table.learn(1, station_mac(1), 1, 8);
  EXPECT_EQ(table.find(1, station_mac(1), 18), 1);
  EXPECT_EQ(table.find(1, station_mac(2), 18), std::nullopt);
  for (uint32_t i = 0; i < 8; ++i) table.learn(1, station_mac(3), 3, 18 + i * 11);
  EXPECT_EQ(table.size(), 1U) << "the old ones still take places";
}

TEST(MacTable, an_address_moves_only_when_its_station_has_been_silent) {
  MacTable table({});
  table.learn(1, station_mac(1), 1, 100);
  EXPECT_EQ(table.learn(1, station_mac(1), 2, 100 + MacTable::hold - 1), Learned::held);
  EXPECT_EQ(table.find(1, station_mac(1), 100), 1);
  EXPECT_EQ(table.learn(1, station_mac(1), 2, 100 + MacTable::hold), Learned::fresh);
  EXPECT_EQ(table.find(1, station_mac(1), 100), 2);
}

TEST(MacTable, stations_that_spray_addresses_leave_room_for_others) {
  constexpr size_t limit = 1024;
  MacTable table({.limit = limit});
  table.learn(1, station_mac(1), 0, 0);
  unsigned next = 2;
  for (uint16_t hostile = 1; hostile < 8; ++hostile) {
    for (unsigned i = 0; i < 2 * limit; ++i) table.learn(1, station_mac(next++), hostile, 0);
  }
  EXPECT_LE(table.size(), limit);
  EXPECT_EQ(table.find(1, station_mac(1), 0), 0) << "it was evicted";
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(table.learn(1, station_mac(next++), 9, 0), Learned::fresh);
}

TEST(MacTable, one_station_gets_half_of_it_at_most) {
  MacTable table({.limit = 1024});
  for (unsigned i = 0; i < 5000; ++i) table.learn(1, station_mac(i), 1, 0);
  EXPECT_EQ(table.size(), 512U);
}

TEST(MacTable, what_is_known_of_a_station_is_forgotten) {
  MacTable table({});
  for (unsigned i = 0; i < 100; ++i) table.learn(1, station_mac(i), i % 2, 0);
  table.forget(1);
  EXPECT_EQ(table.size(), 50U);
  EXPECT_EQ(table.find(1, station_mac(1), 0), std::nullopt);
  EXPECT_EQ(table.find(1, station_mac(2), 0), 0);
}

// Entries come, age and are reused all the time; an address must never be found behind a station that never
// had it.
TEST(MacTable, readers_see_no_mixture_of_entries) {
  MacTable table({.limit = 16, .ageing = 1});
  std::atomic<uint32_t> now = 0;
  std::atomic<bool> stop = false;
  std::atomic<unsigned> found = 0;
  std::vector<std::jthread> threads;
  for (uint16_t writer = 0; writer < 2; ++writer) {
    threads.emplace_back([&, writer] {
      for (unsigned i = 0; !stop; ++i) table.learn(1, station_mac(i % 32 * 2 + writer), writer, now);
    });
  }
  threads.emplace_back([&] {
    for (unsigned i = 0; !stop; ++i) {
      const auto station = table.find(1, station_mac(i % 64), now);
      if (!station) continue;
      ++found;
      ASSERT_EQ(*station, i % 2);
    }
  });
  for (unsigned i = 0; i < 300 || (found == 0 && i < 50'000); ++i) {
    ++now;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  stop = true;
  threads.clear();
  EXPECT_GT(found, 0U);
}

TEST(RateLimit, it_lets_the_rate_through_and_a_burst) {
  RateLimit limit(1000, 100);
  unsigned passed = 0;
  for (unsigned i = 0; i < 1000; ++i) passed += unsigned{limit.take(0, 1)};
  EXPECT_EQ(passed, 100U) << "of a burst";
  passed = 0;
  for (uint64_t now = 0; now < 10'000'000'000; now += 100'000) passed += unsigned{limit.take(now, 1)};
  EXPECT_NEAR(passed, 10'000, 20) << "in ten seconds";
}

TEST(RateLimit, none_is_none) {
  RateLimit limit(0, 0);
  for (unsigned i = 0; i < 1000; ++i) EXPECT_TRUE(limit.take(0, 1'000'000));
}

}  // namespace
}  // namespace ringway::port
