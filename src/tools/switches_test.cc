// The settings of ports and switches as they are written, and what they do to frames.
#include "ringway/tools/switches.h"

#include <gtest/gtest.h>

#include <chrono>

#include "ringway/device/port/switch_rig_test.h"

namespace ringway::tools {
namespace {

using port::test::Bytes;
using port::test::counting;
using port::test::eventually;
using std::chrono::steady_clock;

// A guest on a port that is written like "vlan=10,isolated=yes".
class Guest {
 public:
  Guest(const std::string& settings, unsigned number, loop::Loop& loop)
      : number_(number),
        port_(open_port("switch:name=switches-test" + (settings.empty() ? "" : "," + settings), 1).value()),
        queues_(*port_, loop, 0) {}
  [[nodiscard]] port::Mac mac() const { return port::test::station_mac(number_); }
  void greet() { queues_.send(port::test::ethernet(port::broadcast_mac, mac(), counting(50))); }
  void send_to(const Guest& other, size_t payload = 100, unsigned times = 1) {
    const Bytes frame = port::test::ethernet(other.mac(), mac(), counting(payload));
    queues_.worker().run([&] {
      for (unsigned i = 0; i < times; ++i) queues_.send_here(frame);
    });
  }
  [[nodiscard]] uint64_t count(std::string_view name) const {
    for (const port::Counter& counter : port_->counters()) {
      if (counter.name == name) return counter.value;
    }
    ADD_FAILURE() << "no counter " << name;
    return 0;
  }
  // Of frames. All are on one worker, so that what was sent has arrived.
  [[nodiscard]] size_t received() const { return queues_.received; }

 private:
  const unsigned number_;
  const std::unique_ptr<port::Port> port_;
  port::test::Queues queues_;
};

class SwitchSettings : public testing::Test {
 protected:
  void TearDown() override { guests_.clear(); }
  Guest& guest(const std::string& settings = "") {
    const auto number = static_cast<unsigned>(guests_.size());
    guests_.push_back(std::make_unique<Guest>(settings, number, *loop_));
    return *guests_.back();
  }
  // What has come to the receiver of 1000 frames of 1500 bytes between guests that have been introduced, and
  // how long that took.
  struct Passed {
    uint64_t frames = 0;
    double seconds = 0;
  };
  Passed thousand(Guest& from, Guest& to) {
    const auto begin = steady_clock::now();
    to.greet();
    const size_t before = to.received();
    from.send_to(to, 1500 - port::ethernet_header, 1000);
    const std::chrono::duration<double> took = steady_clock::now() - begin;
    return {.frames = to.received() - before, .seconds = took.count()};
  }
  // What may come at once, and every second. The clock of a switch is a few milliseconds behind.
  static void expect_limited(const Passed& passed, uint64_t unit, uint64_t burst, uint64_t rate) {
    EXPECT_GE(passed.frames * unit, burst - 2 * unit);
    EXPECT_LE(static_cast<double>(passed.frames * unit),
              static_cast<double>(burst + unit) + static_cast<double>(rate) * (passed.seconds + 0.1));
  }

  static constexpr uint64_t frame_bits = 1500 * 8;
  static constexpr uint64_t bit_burst = uint64_t{8} * 128 * 1024;
  static constexpr uint64_t packet_burst = 64;
  const std::unique_ptr<loop::Loop> loop_ = loop::testing::start_or_fail({});
  std::vector<std::unique_ptr<Guest>> guests_;
};

TEST_F(SwitchSettings, without_any_all_frames_pass) {
  Guest& a = guest();
  EXPECT_EQ(thousand(a, guest()).frames, 1000U);
}

TEST_F(SwitchSettings, tx_bps_limits_the_bits_that_a_guest_sends) {
  Guest& a = guest("tx-bps=10000");
  const Passed passed = thousand(a, guest());
  expect_limited(passed, frame_bits, bit_burst, 10'000);
  EXPECT_EQ(a.count("sent, dropped: rate"), 1000 - passed.frames);
}

TEST_F(SwitchSettings, rx_bps_limits_the_bits_that_a_guest_gets) {
  Guest& a = guest();
  Guest& b = guest("rx-bps=10000");
  const Passed passed = thousand(a, b);
  expect_limited(passed, frame_bits, bit_burst, 10'000);
  EXPECT_EQ(b.count("to receive, dropped: rate"), 1000 - passed.frames);
  EXPECT_EQ(a.count("sent, dropped: rate"), 0U);
}

TEST_F(SwitchSettings, tx_pps_and_rx_pps_limit_frames) {
  Guest& a = guest("tx-pps=10");
  Guest& b = guest();
  expect_limited(thousand(a, b), 1, packet_burst, 10);
  Guest& c = guest("rx-pps=10");
  const Passed passed = thousand(b, c);
  expect_limited(passed, 1, packet_burst, 10);
  EXPECT_EQ(c.count("to receive, dropped: rate"), 1000 - passed.frames);
}

TEST_F(SwitchSettings, flood_pps_limits_frames_to_everybody_only) {
  Guest& a = guest("flood-pps=1");
  Guest& b = guest();
  b.greet();
  const auto begin = steady_clock::now();
  for (int i = 0; i < 200; ++i) a.greet();
  const std::chrono::duration<double> took = steady_clock::now() - begin;
  expect_limited({.frames = b.received(), .seconds = took.count()}, 1, packet_burst, 1);
  EXPECT_EQ(thousand(a, b).frames, 1000U);
}

TEST_F(SwitchSettings, isolated_guests_reach_only_who_is_not) {
  Guest& a = guest("isolated=yes");
  Guest& b = guest("isolated=yes");
  Guest& gateway = guest("isolated=no");
  for (Guest* one : {&a, &b, &gateway}) one->greet();
  EXPECT_EQ(a.received(), 1U) << "of the gateway";
  EXPECT_EQ(gateway.received(), 2U);
  a.send_to(b);
  EXPECT_EQ(b.received(), 1U);
  EXPECT_EQ(a.count("sent, dropped: not allowed"), 1U);
  a.send_to(gateway);
  gateway.send_to(b);
  EXPECT_EQ(gateway.received(), 3U);
  EXPECT_EQ(b.received(), 2U);
}

TEST_F(SwitchSettings, a_source_address_may_be_the_only_one) {
  Guest& a = guest("mac=02:00:00:00:00:99");
  Guest& b = guest();
  b.greet();
  a.send_to(b);
  EXPECT_EQ(b.received(), 0U);
  EXPECT_EQ(a.count("sent, dropped: source address"), 1U);
}

// ---- of a whole switch

TEST_F(SwitchSettings, who_is_silent_for_longer_than_the_ageing_is_asked_for_again) {
  const auto workers = engine::Workers::start({.count = 1});
  ASSERT_TRUE(workers);
  const auto fabric = ServedSwitch::open({.name = "switches-test", .ageing = 1}, **workers);
  ASSERT_TRUE(fabric) << fabric.error();
  Guest& a = guest();
  Guest& silent = guest();
  Guest& other = guest();
  const auto begin = steady_clock::now();
  silent.greet();
  const size_t greeted = other.received();
  // Frames to somebody unknown go to everybody.
  EXPECT_TRUE(eventually([&] {
    a.send_to(silent);
    return other.received() > greeted;
  }));
  EXPECT_GT(steady_clock::now() - begin, std::chrono::milliseconds(900));
  EXPECT_GE(silent.received(), 1U);
}

TEST_F(SwitchSettings, no_more_addresses_are_learned_than_macs_says) {
  const auto workers = engine::Workers::start({.count = 1});
  ASSERT_TRUE(workers);
  const auto fabric = ServedSwitch::open({.name = "switches-test", .macs = 8}, **workers);
  ASSERT_TRUE(fabric) << fabric.error();
  uint64_t refused = 0;
  for (int i = 0; i < 20; ++i) guest().greet();
  for (const auto& one : guests_) refused += one->count("frames with an address not learned");
  EXPECT_GE(refused, 12U);
}

}  // namespace
}  // namespace ringway::tools
