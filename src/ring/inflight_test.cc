// A ring whose process dies, between any two steps, and its successor on the same memory.
#include "ringway/ring/inflight.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "ringway/ring/rig_test.h"

namespace ringway::ring::test {
namespace {

struct Killed {};

// In this process a failpoint throws, which leaves shared memory as a kill would.
class KillAt {
 public:
  KillAt(Failpoint point, uint64_t count)
      : before_(std::exchange(detail::at_failpoint, [] { throw Killed(); })) {
    arm(point, count);
  }
  ~KillAt() {
    disarm();
    detail::at_failpoint = before_;
  }
  KillAt(const KillAt&) = delete;
  KillAt& operator=(const KillAt&) = delete;

 private:
  void (*before_)();
};

// A driver whose back-end dies now and then. Every request is known by a number that it carries in its
// buffer.
class Life {
 public:
  Life(const Shape& shape, uint64_t seed)
      : guest_(1 << 20),
        shape_(shape),
        layout_(guest_, shape),
        front_(layout_.driver_config()),
        area_(guest_.allocate(inflight_bytes(shape.size, shape.format.packed), 64)),
        data_(guest_.allocate(uint64_t{numbers} * 8, 64)),
        random_(seed) {
    start();
  }
  ~Life() { kill(); }  // NOLINT(bugprone-exception-escape): the variant always holds a ring
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  // What is armed kills once, wherever it is.
  void run(unsigned steps) {
    for (unsigned i = 0; i < steps; ++i) {
      try {
        step();
      } catch (const Killed&) {
        ++kills;
        kill();
        if (next_point) arm(*next_point, 1);
        start();
      }
    }
  }
  // No more kills: everything that was ever added comes back.
  void finish() {
    disarm();
    for (unsigned i = 0; i < 10 * shape_.size + 10; ++i) {
      pop();
      complete(0);
      publish();
      take_used();
    }
    EXPECT_EQ(front_.in_flight(), 0U);
  }
  void kill_and_restart() {
    kill();
    start();
  }
  void add(uint32_t buffers) {
    const uint64_t number = next_number_;
    const uint64_t at = data_ + number % numbers * 8;
    std::vector<Buffer> readable(buffers, {.address = {at}, .length = 8});
    const auto token = front_.add(readable, {});
    if (!token) return;
    ++next_number_;
    memory::store<uint64_t>(guest_.at(at), number);
    number_of_[*token] = number;
    (void)front_.publish();
  }
  void pop() {
    Chain chain = device_->pop();
    if (!chain) return;
    uint64_t number = 0;
    EXPECT_TRUE(chain.reader().read(number));
    EXPECT_FALSE(ended.contains(number)) << "done again after the driver was told";
    started.push_back(number);
    popped_.push_back(number);
    flying_.push_back({number, std::move(chain)});
  }
  void complete(size_t which) {
    if (flying_.empty()) return;
    const auto at = flying_.begin() + static_cast<ptrdiff_t>(which % flying_.size());
    Chain chain = std::move(at->chain);
    flying_.erase(at);
    device_->push_used(std::move(chain), 0);
  }
  void publish() { (void)device_->publish(); }
  void take_used() {
    while (const auto used = front_.take_used()) {
      const auto one = number_of_.find(used->token);
      ASSERT_NE(one, number_of_.end());
      EXPECT_TRUE(ended.insert(one->second).second) << "answered twice";
      number_of_.erase(one);
    }
  }
  // Only the chain that was popped last can be given back.
  void give_back() {
    if (flying_.empty() || flying_.back().number != popped_.back()) return;
    popped_.pop_back();
    Chain chain = std::move(flying_.back().chain);
    flying_.pop_back();
    device_->push_back(std::move(chain));
  }
  [[nodiscard]] std::byte* area() const { return guest_.at(area_); }
  [[nodiscard]] RingBase base() { return device_->base(); }
  [[nodiscard]] RingConfig config() const {
    RingConfig config = layout_.ring_config();
    config.inflight = guest_.window(area_, inflight_bytes(shape_.size, shape_.format.packed));
    return config;
  }
  Result<Ring> try_start() { return ring::start(config(), guest_.view()); }
  [[nodiscard]] Guest& guest() { return guest_; }
  [[nodiscard]] const Layout& layout() const { return layout_; }

  uint64_t kills = 0;
  std::optional<Failpoint> next_point;  // armed once one has killed
  std::vector<uint64_t> started;        // by number, in order
  std::set<uint64_t> ended;

  void kill() {
    for (Flying& one : flying_) {
      device_->abandon(std::move(one.chain));
    }
    flying_.clear();
    popped_.clear();
    device_.reset();
  }
  void start() {
    for (;;) {
      try {
        device_ = std::make_unique<Device>(must(try_start()));
        return;
      } catch (const Killed&) {
        ++kills;
      }
    }
  }

 private:
  static constexpr uint64_t numbers = 4096;  // before one comes again
  struct Flying {
    uint64_t number;
    Chain chain;
  };
  void step() {
    switch (random_() % 8) {
      case 0:
        return add(1 + random_() % 3);
      case 1:
        return add(1);
      case 2:
      case 3:
        return pop();
      case 4:
        return complete(random_());
      case 5:
        return publish();
      case 6:
        return give_back();
      default:
        return take_used();
    }
  }

  Guest guest_;
  Shape shape_;
  Layout layout_;
  Front front_;
  uint64_t area_;
  uint64_t data_;
  std::mt19937_64 random_;
  std::unique_ptr<Device> device_;
  std::vector<Flying> flying_;    // in the order in which they were popped
  std::vector<uint64_t> popped_;  // since the start, but those that were given back

  uint64_t next_number_ = 0;
  std::map<uint16_t, uint64_t> number_of_;  // by token
};

Shape shape_of(bool packed, uint32_t size, uint32_t table = 0) {
  Shape shape{.size = size, .format = {.packed = packed, .indirect = table > 0, .event_idx = true}};
  shape.table_entries = table;
  return shape;
}

class InflightOf : public testing::TestWithParam<bool> {
 protected:
  // Those of the format, of which some begin with a word.
  static std::vector<Failpoint> points(std::string_view begin = {}) {
    std::vector<Failpoint> found;
    const std::string format = GetParam() ? "packed_" : "split_";
    for (size_t i = 0; i < failpoint_names.size(); ++i) {
      if (failpoint_names[i].starts_with(format + std::string(begin)))
        found.push_back(static_cast<Failpoint>(i));
    }
    return found;
  }
  static std::string_view name(Failpoint point) { return failpoint_names[static_cast<size_t>(point)]; }
  static Shape shape(uint64_t seed) {
    return shape_of(GetParam(), seed % 2 == 0 ? 4 : 8, seed % 3 == 0 ? 3 : 0);
  }
};

TEST_P(InflightOf, a_kill_at_every_failpoint_loses_nothing_and_repeats_nothing) {
  for (const Failpoint point : points()) {
    SCOPED_TRACE(name(point));
    uint64_t kills = 0;
    for (uint64_t seed = 0; seed < 60; ++seed) {
      Life life(shape(seed), seed);
      life.run(static_cast<unsigned>(seed * 3));
      for (uint64_t count = 1; count <= 3; ++count) {
        const KillAt kill(point, count);
        life.kill_and_restart();  // for those of the start
        life.run(60);
      }
      kills += life.kills;
      life.finish();
    }
    // Those of a start that has to repair something are passed only after a kill in the right moment: see
    // below.
    EXPECT_TRUE(kills > 0 || name(point).find("_recover_") != std::string_view::npos);
  }
}

TEST_P(InflightOf, a_kill_while_a_ring_recovers_from_a_kill_at_any_failpoint_loses_nothing_either) {
  for (const Failpoint second : points("recover_")) {
    SCOPED_TRACE(name(second));
    uint64_t kills = 0;  // beyond the first of each life
    for (const Failpoint first : points()) {
      if (name(first).find("_recover_") != std::string_view::npos) continue;
      SCOPED_TRACE(name(first));
      for (uint64_t seed = 0; seed < 12; ++seed) {
        Life life(shape(seed), seed);
        life.next_point = second;
        life.run(static_cast<unsigned>(seed * 5));
        const KillAt kill(first, 1 + seed % 4);
        life.run(100);
        kills += std::max<uint64_t>(life.kills, 1) - 1;
        life.finish();
      }
    }
    EXPECT_GT(kills, 0U);
  }
}

TEST_P(InflightOf, a_kill_while_its_area_is_made_is_no_harm) {
  for (const Failpoint point : {Failpoint::make_begin, Failpoint::make_written, Failpoint::make_end}) {
    SCOPED_TRACE(name(point));
    const KillAt kill(point, 1);
    Life life(shape(1), 1);
    EXPECT_EQ(life.kills, 1U);
    life.run(100);
    life.finish();
  }
}

TEST_P(InflightOf, what_was_taken_is_done_again_in_order_and_nothing_else) {
  Life life(shape_of(GetParam(), 8), 1);
  for (int i = 0; i < 6; ++i) life.add(1);
  for (int i = 0; i < 5; ++i) life.pop();
  life.complete(3);
  life.complete(0);
  life.publish();
  life.kill();
  life.start();
  life.started.clear();
  for (int i = 0; i < 6; ++i) life.pop();
  EXPECT_EQ(life.started, (std::vector<uint64_t>{1, 2, 4, 5}));
  life.take_used();
  EXPECT_EQ(life.ended, (std::set<uint64_t>{0, 3}));
  life.finish();
  EXPECT_EQ(life.ended.size(), 6U);
}

TEST_P(InflightOf, a_batch_that_was_not_shown_is_done_again) {
  Life life(shape_of(GetParam(), 8), 1);
  for (int i = 0; i < 4; ++i) life.add(2);
  for (int i = 0; i < 4; ++i) life.pop();
  for (int i = 0; i < 3; ++i) life.complete(1);
  life.kill();
  life.start();
  life.started.clear();
  life.pop();
  life.complete(0);
  life.publish();
  life.take_used();
  EXPECT_EQ(life.ended, (std::set<uint64_t>{0})) << "what the dead one wrote behind it is not seen";
  life.finish();
  EXPECT_EQ(life.ended.size(), 4U);
}

TEST_P(InflightOf, a_chain_that_was_given_back_is_not_in_flight) {
  Life life(shape_of(GetParam(), 8), 1);
  for (int i = 0; i < 3; ++i) life.add(1);
  for (int i = 0; i < 3; ++i) life.pop();
  life.give_back();
  life.give_back();
  EXPECT_EQ(life.base().avail, 1U);
  life.kill();
  life.start();
  EXPECT_EQ(life.base().avail, 1U);
  life.finish();
  EXPECT_EQ(life.ended.size(), 3U);
}

TEST_P(InflightOf, what_was_not_popped_again_yet_still_counts_as_taken) {
  Life life(shape_of(GetParam(), 8), 1);
  for (int i = 0; i < 4; ++i) life.add(1);
  for (int i = 0; i < 3; ++i) life.pop();
  for (int round = 0; round < 3; ++round) {
    life.kill();
    life.start();
    EXPECT_EQ(life.base().avail, 3U);
    life.pop();
    life.give_back();
    EXPECT_EQ(life.base().avail, 3U);
  }
  life.finish();
  EXPECT_EQ(life.ended.size(), 4U);
}

INSTANTIATE_TEST_SUITE_P(Formats, InflightOf, testing::Values(false, true),
                         [](const auto& instance) { return instance.param ? "packed" : "split"; });

// ---- hostile contents

std::string refusal(Life& life) {
  const auto started = life.try_start();
  return started ? "started" : started.error().what;
}

template <class T>
void put(std::byte* at, T value) {
  memory::store<T>(at, value);
}

TEST(InflightHostile, H136_another_version_or_features_are_refused) {
  for (const bool packed : {false, true}) {
    Life life(shape_of(packed, 4), 1);
    for (const uint16_t version : {2, 0xffff}) {
      put<uint16_t>(life.area() + 8, version);
      EXPECT_EQ(refusal(life), "in-flight area has another version");
    }
    put<uint16_t>(life.area() + 8, 1);
    put<uint64_t>(life.area(), 1);
    EXPECT_EQ(refusal(life), "in-flight area has features");
  }
}

TEST(InflightHostile, H070_an_area_of_another_ring_size_is_refused) {
  for (const bool packed : {false, true}) {
    Life life(shape_of(packed, 4), 1);
    for (const uint16_t entries : {0, 3, 5, 0xffff}) {
      put<uint16_t>(life.area() + 10, entries);
      EXPECT_EQ(refusal(life), "in-flight area is of another ring size");
    }
    RingConfig config = life.config();
    config.inflight = life.guest().window(life.layout().area, inflight_bytes(4, packed) - 64);
    const auto started = start(std::move(config), life.guest().view());
    ASSERT_FALSE(started);
    EXPECT_STREQ(started.error().what, "ring area is too small for the ring size");
  }
}

TEST(InflightHostile, H143_a_used_index_that_is_further_away_than_the_ring_is_refused) {
  Life life(shape_of(false, 4), 1);
  put<uint16_t>(life.area() + 14, 1);
  EXPECT_EQ(refusal(life), "in-flight area is of another used index");
}

TEST(InflightHostile, A131_a_batch_that_leads_out_of_the_table_is_refused) {
  Life life(shape_of(false, 4), 1);
  put<uint16_t>(life.area() + 14, 0xfffe);
  put<uint16_t>(life.area() + 12, 4);
  EXPECT_EQ(refusal(life), "in-flight area contradicts itself");
  put<uint16_t>(life.area() + 12, 3);
  put<uint16_t>(life.area() + 16 + 3 * 16 + 6, 0xffff);
  EXPECT_EQ(refusal(life), "in-flight area contradicts itself");
}

TEST(InflightHostile, H139_H142_all_entries_in_flight_with_equal_counters_are_at_most_the_ring) {
  Life life(shape_of(false, 4), 1);
  life.kill();
  for (size_t i = 0; i < 4; ++i) {
    put<uint8_t>(life.area() + 16 + i * 16, 7);
    put<uint64_t>(life.area() + 16 + i * 16 + 8, UINT64_MAX);
  }
  auto* const avail = reinterpret_cast<vring_avail*>(life.guest().at(life.layout().driver));
  avail->idx = 4;
  Device device(must(life.try_start()));
  unsigned chains = 0;
  while (true) {
    auto chain = device.try_pop();
    if (!chain || !*chain) break;
    ++chains;
    device.abandon(*std::move(chain));
  }
  EXPECT_LE(chains, 4U);
  EXPECT_EQ(device.base().avail, 4U);
  life.start();
}

TEST(InflightHostile, packed_lists_that_contradict_each_other_are_refused) {
  constexpr size_t entries = 32;
  Life life(shape_of(true, 4), 1);
  const auto expect_refused = [&](auto spoil) {
    const std::vector<std::byte> before(life.area(), life.area() + inflight_bytes(4, true));
    spoil(life.area());
    EXPECT_EQ(refusal(life), "in-flight area contradicts itself");
    std::ranges::copy(before, life.area());
  };
  expect_refused([](std::byte* area) { put<uint16_t>(area + entries + 2, 0); });  // a loop
  expect_refused([](std::byte* area) { put<uint16_t>(area + entries + 2, 9); });  // a short free list
  expect_refused([](std::byte* area) { put<uint32_t>(area + 12, 0x00040004); });  // none free
  expect_refused([](std::byte* area) { put<uint16_t>(area + 18, 4); });           // old used index
  expect_refused([](std::byte* area) { put<uint16_t>(area + 16, 0xffff); });      // used index
  expect_refused([](std::byte* area) {  // in flight: no descriptors, too many, a loop, an id outside
    put<uint32_t>(area + 12, 0x00010001);
    put<uint8_t>(area + entries, 1);
    put<uint16_t>(area + entries + 6, 0);
  });
  expect_refused([](std::byte* area) {
    put<uint32_t>(area + 12, 0x00010001);
    put<uint8_t>(area + entries, 1);
    put<uint16_t>(area + entries + 6, 5);
  });
  expect_refused([](std::byte* area) {
    put<uint32_t>(area + 12, 0x00010001);
    put<uint8_t>(area + entries, 1);
    put<uint16_t>(area + entries + 6, 1);
    put<uint16_t>(area + entries + 16, 4);
  });
  expect_refused([](std::byte* area) {  // its only descriptor is continued
    put<uint32_t>(area + 12, 0x00010001);
    put<uint8_t>(area + entries, 1);
    put<uint16_t>(area + entries + 6, 1);
    put<uint16_t>(area + entries + 18, VRING_DESC_F_NEXT);
  });
  expect_refused([](std::byte* area) {  // two chains of one id
    put<uint32_t>(area + 12, 0x00020002);
    for (size_t i = 0; i < 2; ++i) {
      put<uint8_t>(area + entries + i * 32, 1);
      put<uint16_t>(area + entries + i * 32 + 6, 1);
    }
  });
  life.start();
}

TEST(InflightHostile, random_areas_break_at_most_their_ring) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const bool packed = seed % 2 == 0;
    Life life(shape_of(packed, 4), seed);
    life.run(40);
    life.kill();
    std::mt19937_64 random(seed);
    for (int i = 0; i < 6; ++i) {
      const auto at = random() % inflight_bytes(4, packed);
      put<uint8_t>(life.area() + (at < 12 ? at + 12 : at), static_cast<uint8_t>(random() % 9));
    }
    auto started = life.try_start();
    if (started) {
      Device device(*std::move(started));
      for (int i = 0; i < 40; ++i) {
        auto chain = device.try_pop();
        if (!chain) break;
        if (*chain) device.push_used(*std::move(chain), 0);
        (void)device.publish();
      }
    }
    put<uint16_t>(life.area() + 8, 0);
    life.start();
  }
}

}  // namespace
}  // namespace ringway::ring::test
