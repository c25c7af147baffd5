#include "ringway/engine/local_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <sys/syscall.h>

#include <fstream>

#include "ringway/base/failing_call_test.h"
#include "ringway/engine/rig_test.h"

namespace ringway::engine {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using vhost::bit;

class LocalDeviceRing : public EngineRig, public testing::WithParamInterface<uint64_t> {};

TEST_P(LocalDeviceRing, N036_stops_and_starts_a_thousand_times_and_every_request_comes_back_once) {
  const uint64_t features = modern | GetParam();
  start(features);
  for (int round = 0; round < 1000; ++round) {
    add(fmt::format("before the stop {}", round));
    const auto base = ask(vhost::GetVringBase{0});
    ASSERT_TRUE(base) << base.error().to_string();
    must(vhost::SetVringBase{0, base->value});
    must(vhost::SetVringKick{0, kick_.copy()});
    add(fmt::format("after the start {}", round));
    ASSERT_TRUE(take(2)) << round;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LocalDeviceRing,
                         testing::Values(0, bit(VIRTIO_RING_F_EVENT_IDX), bit(VIRTIO_F_RING_PACKED),
                                         bit(VIRTIO_F_RING_PACKED) | bit(VIRTIO_RING_F_EVENT_IDX),
                                         bit(VIRTIO_F_IN_ORDER)));

class LocalDeviceTest : public EngineRig {};

TEST_F(LocalDeviceTest, N034_a_ring_starts_at_set_vring_kick_without_a_kick) {
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  expected_.clear();
  const ring::Buffer readable{.address = {guest_base + data_offset}, .length = 4};
  const ring::Buffer writable{.address = {guest_base + data_offset + 2048}, .length = 4};
  std::memcpy(memory_.data() + data_offset, "ping", 4);
  std::visit(
      [&](auto& driver) {
        ASSERT_TRUE(driver.add({.readable = {&readable, 1}, .writable = {&writable, 1}}));
        (void)driver.publish();
      },
      *driver_);
  expected_.push_back({data_offset + 2048, "ping"});
  must(vhost::SetVringKick{0, kick_.copy()});
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, a_ring_that_is_described_after_set_vring_kick_starts_at_the_first_kick) {
  must(vhost::SetFeatures{modern});
  make_driver(modern);
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, kick_.copy()});
  const ring::DriverLayout layout = driver_config_.layout();
  must(vhost::SetVringAddr{.ring = 0,
                           .desc = user_base + layout.desc,
                           .used = user_base + layout.device,
                           .avail = user_base + layout.driver});
  must(vhost::SetVringBase{0, 0});
  share_memory();
  must(vhost::SetVringNum{0, driver_config_.size});
  add("first", true);
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, N033_a_ring_that_is_not_enabled_is_not_served_and_N030_enabling_it_serves_it) {
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringKick{0, kick_.copy()});
  add("early", true);
  EXPECT_TRUE(stays_silent());
  must(vhost::SetVringEnable{0, 1});
  EXPECT_TRUE(take());
  must(vhost::SetVringEnable{0, 0});
  add("again", true);
  EXPECT_TRUE(stays_silent());
  must(vhost::SetVringEnable{0, 1});
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest,
       N031_a_disabled_ring_runs_if_its_model_says_that_it_can_and_knows_that_it_is_disabled) {
  model_.runs_disabled_ = true;
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringKick{0, kick_.copy()});
  add("while disabled", true);
  EXPECT_TRUE(take());
  EXPECT_EQ(model_.enabled_, 0);
  must(vhost::SetVringEnable{0, 1});
  EXPECT_EQ(model_.enabled_, 1);
  add("enabled", true);
  EXPECT_TRUE(take());
  must(vhost::SetVringEnable{0, 0});
  EXPECT_EQ(model_.enabled_, 0);
  add("disabled again", true);
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, N102_N103_MTU_and_announcement_reach_the_model) {
  const uint64_t capabilities = ask(vhost::GetProtocolFeatures{})->bits;
  EXPECT_NE(capabilities & bit(vhost::VHOST_USER_PROTOCOL_F_MTU), 0U);
  EXPECT_NE(capabilities & bit(vhost::VHOST_USER_PROTOCOL_F_RARP), 0U);
  must(vhost::NetSetMtu{9000});
  EXPECT_EQ(model_.mtu_, 9000U);
  must(vhost::SendRarp{0x060504030201});
  const std::array<std::byte, 6> expected{std::byte{1}, std::byte{2}, std::byte{3},
                                          std::byte{4}, std::byte{5}, std::byte{6}};
  EXPECT_EQ(model_.announced_, expected);
}

TEST_F(LocalDeviceTest, N040_without_protocol_features_all_rings_are_enabled_at_once) {
  must(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1)});
  share_memory();
  make_driver(bit(VIRTIO_F_VERSION_1));
  describe_ring();
  must(vhost::SetVringKick{0, kick_.copy()});
  add("enabled");
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, N106_a_legacy_ring_of_either_byte_order_is_served_and_goes_on_after_a_stop) {
  const uint64_t legacy = bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES) | bit(VIRTIO_RING_F_EVENT_IDX);
  must(vhost::SetFeatures{legacy});
  share_memory();
  for (const bool big : {true, false}) {
    make_driver(legacy, 4);
    driver_config_.format.big_endian = big;
    driver_.emplace(*ring::make_driver(driver_config_));
    must(vhost::SetVringEndian{0, big ? 1U : 0U});
    describe_ring();
    must(vhost::SetVringErr{0, err_.copy()});
    must(vhost::SetVringEnable{0, 1});
    for (unsigned round = 0; round < 3; ++round) {
      must(vhost::SetVringKick{0, kick_.copy()});
      for (unsigned i = 0; i < 5; ++i) {
        add(fmt::format("round {}, request {}", round, i));
        ASSERT_TRUE(take()) << big;
      }
      const auto base = ask(vhost::GetVringBase{0});
      ASSERT_TRUE(base);
      EXPECT_EQ(base->value, 5 * (round + 1));
      must(vhost::SetVringBase{0, base->value});
    }
  }
  EXPECT_FALSE(err_.arrived(milliseconds(0)));
}

TEST_F(LocalDeviceTest, N029_a_stopped_ring_is_not_served) {
  start();
  must(vhost::GetVringBase{0});
  add("nobody reads this", true);
  EXPECT_TRUE(stays_silent());
}

TEST_F(LocalDeviceTest, N097_a_ring_without_a_kick_fd_is_polled) {
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, UniqueFd()});
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(milliseconds(5));  // long enough to be idle
    add("seen by polling");
    ASSERT_TRUE(take());
  }
}

TEST_F(LocalDeviceTest, H094_a_ring_without_a_call_fd_works) {
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, kick_.copy()});
  add("quiet");
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, the_driver_is_called_and_after_a_new_call_fd_called_there) {
  start();
  std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  add("one");
  EXPECT_TRUE(call_.arrived());
  EXPECT_TRUE(take());
  const Event other;
  must(vhost::SetVringCall{0, other.copy()});
  EXPECT_TRUE(other.arrived());
  std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  add("two");
  EXPECT_TRUE(other.arrived());
  EXPECT_TRUE(take());
  EXPECT_FALSE(call_.arrived(milliseconds(20)));
}

class LocalDeviceCalls : public LocalDeviceTest {
 protected:
  void start_moderated(uint32_t chains, std::chrono::microseconds delay) {
    model_.moderation_ = {.chains = chains, .delay = delay};
    start();
    std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  }
};

TEST_F(LocalDeviceCalls, a_driver_that_wants_to_be_called_later_is) {
  start_moderated(1000, milliseconds(100));
  for (int i = 0; i < 3; ++i) {
    add("a");
    add("b");
    EXPECT_TRUE(take(2));
    EXPECT_FALSE(call_.arrived(milliseconds(20)));
    EXPECT_TRUE(call_.arrived());
    EXPECT_FALSE(call_.arrived(milliseconds(120)));
  }
}

TEST_F(LocalDeviceCalls, a_driver_that_wants_to_be_called_after_some_chains_is) {
  start_moderated(3, std::chrono::seconds(100));
  for (int i = 0; i < 3; ++i) {
    add("a");
    EXPECT_TRUE(take());
    add("b");
    EXPECT_TRUE(take());
    EXPECT_FALSE(call_.arrived(milliseconds(20)));
    add("c");
    EXPECT_TRUE(call_.arrived());
    EXPECT_TRUE(take());
  }
}

TEST_F(LocalDeviceCalls, chains_that_are_used_by_the_batch_count_one_by_one) {
  start_moderated(8, std::chrono::seconds(100));
  model_.swallows_ = true;
  workers_->worker(0).post([] { std::this_thread::sleep_for(milliseconds(50)); });  // so that all wait
  for (int i = 0; i < 8; ++i) add("a");
  EXPECT_TRUE(call_.arrived());
  EXPECT_TRUE(take(8));
}

TEST_F(LocalDeviceCalls, a_driver_that_waits_for_more_chains_than_its_ring_has_is_called_when_all_are_used) {
  start_moderated(UINT32_MAX, std::chrono::seconds(100));
  for (uint32_t i = 0; i < driver_config_.size / 2; ++i) add("a");  // two descriptors each
  EXPECT_TRUE(take(driver_config_.size / 2));
  EXPECT_FALSE(call_.arrived(milliseconds(20)));
  for (uint32_t i = 0; i < driver_config_.size / 2; ++i) add("b");
  EXPECT_TRUE(call_.arrived());
  EXPECT_TRUE(take(driver_config_.size / 2));
}

TEST_F(LocalDeviceCalls, a_call_that_is_held_back_comes_when_the_ring_stops) {
  start_moderated(1000, std::chrono::seconds(100));
  add("a");
  EXPECT_TRUE(take());
  EXPECT_FALSE(call_.arrived(milliseconds(20)));
  must(vhost::GetVringBase{0});
  EXPECT_TRUE(call_.arrived(milliseconds(0)));
}

TEST_F(LocalDeviceTest, H092_a_second_kick_fd_replaces_the_first_and_no_request_is_lost) {
  start();
  add("by the first");
  ASSERT_TRUE(take());
  Event second;
  must(vhost::SetVringKick{0, second.copy()});
  std::swap(kick_, second);
  std::this_thread::sleep_for(milliseconds(5));
  add("by the second");
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, H028_a_file_is_no_kick_fd) {
  must(vhost::SetFeatures{modern});
  EXPECT_FALSE(ask(vhost::SetVringKick{0, *memory_fd_.duplicate()}));
  EXPECT_FALSE(ask(vhost::SetVringCall{0, *memory_fd_.duplicate()}));
  EXPECT_FALSE(ask(vhost::SetVringErr{0, *memory_fd_.duplicate()}));
}

TEST_F(LocalDeviceTest, H029_kick_and_call_may_be_pipes_and_H031_a_full_blocking_pipe_stalls_nobody) {
  int kick[2];
  int call[2];
  ASSERT_EQ(::pipe2(kick, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(call, O_CLOEXEC), 0);
  const UniqueFd kick_write(kick[1]);
  const UniqueFd call_read(call[0]);
  const UniqueFd call_write(call[1]);
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, UniqueFd(kick[0])});
  must(vhost::SetVringCall{0, *call_write.duplicate()});
  std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  // Nobody reads the call pipe, which is blocking and holds 64 KiB.
  for (int i = 0; i < 20'000; ++i) {
    add("x");
    const uint64_t one = 1;
    ASSERT_EQ(::write(kick_write.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
    ASSERT_TRUE(take()) << i;
  }
}

TEST_F(LocalDeviceTest, N096_stopping_waits_until_what_was_taken_is_used) {
  start();
  model_.holding_ = true;
  for (int i = 0; i < 10; ++i) add("slow");
  ASSERT_TRUE(soon([&] { return model_.held_ == 10; }));
  std::atomic<bool> stopped = false;
  std::thread stopper([&] {
    must(vhost::GetVringBase{0});
    stopped = true;
  });
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_FALSE(stopped);
  workers_->worker(0).run([&] { model_.release_(); });
  stopper.join();
  EXPECT_TRUE(take(10, milliseconds(0)));  // everything was visible before the reply
}

TEST_F(LocalDeviceTest, chains_stay_available_until_the_device_has_use_for_them) {
  model_.appetite_ = 0;
  start();
  for (const char* const text : {"one", "two", "three"}) add(text, true);
  EXPECT_TRUE(stays_silent());
  const auto take_so_many = [&](size_t count) {
    model_.appetite_ = count;
    bool taken = false;
    workers_->worker(0).run([&] { taken = model_.take_available_(); });
    return taken;
  };
  const unsigned flushes = model_.flushes_;
  EXPECT_TRUE(take_so_many(1));
  EXPECT_TRUE(take(1));
  EXPECT_TRUE(soon([&] { return model_.flushes_ > flushes; }));
  EXPECT_TRUE(stays_silent());
  EXPECT_TRUE(take_so_many(2));
  EXPECT_TRUE(take(2));
  EXPECT_FALSE(take_so_many(1));
  EXPECT_TRUE(stays_silent());
  add("what comes when nothing is left is told of by a kick");
  EXPECT_TRUE(take(1));
}

TEST_F(LocalDeviceTest, a_broken_ring_says_so_and_works_again_after_a_new_cycle) {
  start();
  model_.failing_ = true;
  add("bad");
  EXPECT_TRUE(err_.arrived());
  EXPECT_TRUE(stays_silent());
  EXPECT_EQ(*ask(vhost::GetStatus{}) & VIRTIO_CONFIG_S_NEEDS_RESET, uint64_t{VIRTIO_CONFIG_S_NEEDS_RESET});
  must(vhost::GetVringBase{0});
  must(vhost::ResetDevice{});
  EXPECT_EQ(*ask(vhost::GetStatus{}), 0U);
  model_.failing_ = false;
  expected_.clear();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, kick_.copy()});
  add("good");
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, a_driver_that_breaks_the_ring_stops_only_that_ring) {
  start();
  const ring::DriverLayout layout = driver_config_.layout();
  memory::store<uint16_t>(memory_.data() + layout.driver + 2, 4711);  // avail.idx jumps
  kick_.signal();
  EXPECT_TRUE(err_.arrived());
  EXPECT_TRUE(ask(vhost::GetFeatures{}));
  EXPECT_TRUE(ask(vhost::GetVringBase{0}));
}

TEST_F(LocalDeviceTest, in_band_kicks_start_and_serve_a_ring) {
  must(vhost::SetFeatures{modern});
  must(vhost::SetProtocolFeatures{{bit(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)}});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  add("before the kick");
  must(vhost::VringKick{0});
  EXPECT_TRUE(take());
  std::this_thread::sleep_for(milliseconds(5));
  add("after it");
  must(vhost::VringKick{0});
  EXPECT_TRUE(take());
}

// Keeps what it is told; while `deaf`, it takes nothing more.
class Listener final : public vhost::FrontEnd {
 public:
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override {
    ++begun;
    while (deaf) std::this_thread::sleep_for(milliseconds(1));
    if (const auto* call = std::get_if<vhost::VringCall>(&request)) called_ring = call->ring;
    if (const auto* err = std::get_if<vhost::VringErr>(&request)) broken_ring = err->ring;
    return vhost::FrontEndReply(vhost::Done{});
  }
  static constexpr uint32_t none = UINT32_MAX;
  std::atomic<bool> deaf = false;
  std::atomic<unsigned> begun = 0;
  std::atomic<uint32_t> called_ring = none;
  std::atomic<uint32_t> broken_ring = none;
};

TEST_F(LocalDeviceTest, N133_in_band_calls_and_N134_errors_are_sent_when_they_are_due) {
  must(vhost::SetFeatures{modern});
  must(vhost::SetProtocolFeatures{{bit(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)}});
  share_memory();
  make_driver(modern);
  describe_ring(user_base, 1);
  const auto front_end = std::make_shared<Listener>();
  must(vhost::SetFrontEnd{front_end});
  must(vhost::SetVringEnable{1, 1});
  std::visit([](auto& driver) { driver.disable_calls(); }, *driver_);
  add("not called");
  must(vhost::VringKick{1});
  ASSERT_TRUE(take());
  EXPECT_EQ(front_end->called_ring, Listener::none) << "the driver wants no calls";
  std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  add("called");
  must(vhost::VringKick{1});
  EXPECT_TRUE(soon([&] { return front_end->called_ring == 1; }));
  ASSERT_TRUE(take());
  EXPECT_EQ(front_end->broken_ring, Listener::none);
  model_.failing_ = true;
  add("broken");
  must(vhost::VringKick{1});
  EXPECT_TRUE(soon([&] { return front_end->broken_ring == 1; }));
  device_->disconnect();
}

TEST_F(LocalDeviceTest, N133_without_the_feature_nothing_is_said_in_band) {
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  const auto front_end = std::make_shared<Listener>();
  must(vhost::SetFrontEnd{front_end});
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, kick_.copy()});
  std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  add("there is no call fd");
  ASSERT_TRUE(take());
  model_.failing_ = true;
  add("there is no err fd", true);
  EXPECT_TRUE(soon([&] { return *ask(vhost::GetStatus{}) != 0; }));
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(front_end->begun, 0U);
  device_->disconnect();
}

// Kibibytes.
size_t resident() {
  std::ifstream status("/proc/self/statm");
  size_t all = 0;
  size_t pages = 0;
  status >> all >> pages;
  return pages * 4;
}

TEST_F(LocalDeviceTest, H310_a_front_end_that_stands_still_costs_neither_memory_nor_a_thread) {
  start();
  std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
  const UniqueFd call = call_.copy();
  const uint64_t all_but_full = UINT64_MAX - 1;  // one more write would block
  ASSERT_EQ(::write(call.get(), &all_but_full, sizeof all_but_full), 8);
  const auto front_end = std::make_shared<Listener>();
  front_end->deaf = true;
  must(vhost::SetFrontEnd{front_end});
  const auto stand_still = [&](int rounds) {
    for (int i = 0; i < rounds; ++i) {
      model_.announce_change();
      add("still served");
      ASSERT_TRUE(take());
      std::visit([](auto& driver) { (void)driver.enable_calls(); }, *driver_);
    }
  };
  stand_still(2'000);
  [[maybe_unused]] const size_t before = resident();
  stand_still(20'000);
#ifndef RINGWAY_SANITIZE  // they keep what was freed, and notes
  EXPECT_LT(resident(), before + 1024);
#endif
  EXPECT_EQ(front_end->begun, 1U);
  front_end->deaf = false;
  EXPECT_TRUE(soon([&] { return front_end->begun == 2; })) << "the news that waited, once";
  device_->disconnect();
}

TEST_F(LocalDeviceTest, H317_a_back_end_channel_that_cannot_have_a_thread_is_refused_and_the_rings_go_on) {
  start();
  const auto front_end = std::make_shared<Listener>();
  std::jthread([&] {
    make_fail(SYS_clone3, EAGAIN);
    const auto reply = ask(vhost::SetFrontEnd{front_end});
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().os_error, EAGAIN);
  }).join();
  model_.announce_change();  // to nobody
  add("still served");
  EXPECT_TRUE(take());
  must(vhost::SetFrontEnd{front_end});
  model_.announce_change();
  EXPECT_TRUE(soon([&] { return front_end->begun == 1; }));
  device_->disconnect();
}

TEST_F(LocalDeviceTest, H154_nothing_is_served_before_driver_ok_when_status_is_negotiated) {
  must(vhost::SetFeatures{modern});
  must(vhost::SetProtocolFeatures{{bit(vhost::VHOST_USER_PROTOCOL_F_STATUS)}});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, kick_.copy()});
  add("waits", true);
  EXPECT_TRUE(stays_silent());
  must(vhost::SetStatus{VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK});
  EXPECT_TRUE(take());
  must(vhost::SetStatus{0});
  EXPECT_GT(model_.resets_, 0U);
  add("after the reset", true);
  EXPECT_TRUE(stays_silent());
}

// ---- memory
// ----------------------------------------------------------------------------------------------------------

TEST_F(LocalDeviceTest, memory_slots_come_and_go_while_the_ring_runs) {
  must(vhost::SetFeatures{modern});
  must(vhost::AddMemReg{region(0, data_offset)});
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringErr{0, err_.copy()});
  must(vhost::SetVringEnable{0, 1});
  must(vhost::SetVringKick{0, kick_.copy()});
  for (int i = 0; i < 100; ++i) {
    must(vhost::AddMemReg{region(data_offset, memory_size - data_offset)});
    add(fmt::format("round {}", i));
    ASSERT_TRUE(take());
    must(vhost::RemMemReg{region(data_offset, memory_size - data_offset).layout});
  }
  add("its data is in no slot");
  EXPECT_TRUE(err_.arrived());
}

TEST_F(LocalDeviceTest, H107_a_table_without_the_ring_stops_it_and_one_with_it_goes_on) {
  start();
  add("one");
  ASSERT_TRUE(take());
  vhost::SetMemTable same;
  same.regions.push_back(region(0, data_offset));
  same.regions.push_back(region(data_offset, memory_size - data_offset));
  must(std::move(same));
  add("two");
  ASSERT_TRUE(take());
  vhost::SetMemTable without;
  without.regions.push_back(region(data_offset, memory_size - data_offset));
  must(std::move(without));
  EXPECT_TRUE(err_.arrived());
  add("three", true);
  EXPECT_TRUE(stays_silent());
}

TEST_F(LocalDeviceTest, H103_overlapping_regions_are_refused_and_the_table_stays) {
  start();
  EXPECT_FALSE(ask(vhost::AddMemReg{region(4096, 4096)}));
  vhost::SetMemTable overlapping;
  overlapping.regions.push_back(region(0, 8192));
  overlapping.regions.push_back(region(4096, 8192));
  EXPECT_FALSE(ask(std::move(overlapping)));
  add("still here");
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceTest, H109_all_509_slots_can_be_filled_and_no_more) {
  ASSERT_EQ(*ask(vhost::GetMaxMemSlots{}), 509U);
  for (uint64_t i = 0; i < 509; ++i) must(vhost::AddMemReg{region(i * 4096, 4096)});
  const auto full = ask(vhost::AddMemReg{region(uint64_t{509} * 4096, 4096)});
  ASSERT_FALSE(full);
  EXPECT_THAT(full.error().to_string(), HasSubstr("slots are taken"));
}

TEST_F(LocalDeviceTest, H112_a_region_is_removed_whatever_its_file_offset_and_only_once) {
  must(vhost::AddMemReg{region(0, 8192)});
  auto layout = region(0, 8192).layout;
  layout.file_offset = 12345;
  must(vhost::RemMemReg{layout});
  EXPECT_FALSE(ask(vhost::RemMemReg{layout}));
}

TEST_F(LocalDeviceTest, a_truncated_memory_file_breaks_the_ring_and_nothing_else) {
  start();
  add("fine");
  ASSERT_TRUE(take());
  ASSERT_EQ(::ftruncate(memory_fd_.get(), 0), 0);
  kick_.signal();
  EXPECT_TRUE(err_.arrived());
  EXPECT_TRUE(ask(vhost::GetFeatures{}));
  EXPECT_TRUE(ask(vhost::GetVringBase{0}));
  ASSERT_EQ(::ftruncate(memory_fd_.get(), memory_size), 0);
}

// ---- IOTLB
// -----------------------------------------------------------------------------------------------------------

// Answers misses from a table of its own, as a VMM with an IOMMU does.
class IommuFrontEnd final : public vhost::FrontEnd {
 public:
  explicit IommuFrontEnd(std::function<void(const vhost::IotlbMessage&)> on_miss)
      : on_miss_(std::move(on_miss)) {}
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override {
    if (const auto* fault = std::get_if<vhost::IotlbFault>(&request)) on_miss_(fault->message);
    if (std::holds_alternative<vhost::ConfigChange>(request)) ++config_changes_;
    return vhost::FrontEndReply(vhost::Done{});
  }
  std::atomic<unsigned> config_changes_ = 0;

 private:
  const std::function<void(const vhost::IotlbMessage&)> on_miss_;
};

class LocalDeviceIotlb : public EngineRig {
 protected:
  static constexpr uint64_t iova_base = 0x1'0000'0000;
  static constexpr uint64_t page = 4096;

  vhost::UpdateIotlb map(uint64_t offset, uint8_t permission = 3, uint64_t size = page) const {
    return {{.iova = {iova_base + offset},
             .size = size,
             .front_end = {user_base + offset},
             .permission = permission,
             .type = vhost::IotlbType::update}};
  }
  vhost::UpdateIotlb unmap(uint64_t offset, uint64_t size = page) const {
    return {{.iova = {iova_base + offset}, .size = size, .type = vhost::IotlbType::invalidate}};
  }
  void start_behind_iommu(uint64_t more = 0) {
    const uint64_t features = modern | bit(VIRTIO_F_ACCESS_PLATFORM) | more;
    must(vhost::SetFeatures{features});
    share_memory();
    make_driver(features, 64, iova_base);
    describe_ring(iova_base);
    must(vhost::SetVringErr{0, err_.copy()});
    front_end_ = std::make_shared<IommuFrontEnd>([this](const vhost::IotlbMessage& miss) {
      ++misses_;
      const uint64_t offset = (miss.iova.value - iova_base) / page * page;
      if (answering_) (void)ask(map(offset));
    });
    must(vhost::SetFrontEnd{front_end_});
    must(vhost::SetVringEnable{0, 1});
    must(vhost::SetVringKick{0, kick_.copy()});
  }
  void TearDown() override { device_->disconnect(); }

  std::shared_ptr<IommuFrontEnd> front_end_;
  std::atomic<unsigned> misses_ = 0;
  std::atomic<bool> answering_ = true;
};

TEST_F(LocalDeviceIotlb, N073_starts_with_an_empty_iotlb_and_asks_for_what_it_needs) {
  start_behind_iommu();
  add("translated");
  EXPECT_TRUE(take());
  EXPECT_GT(misses_, 0U);
}

TEST_F(LocalDeviceIotlb, an_invalidated_mapping_is_not_used_again) {
  start_behind_iommu();
  add("one");
  ASSERT_TRUE(take());
  const uint64_t where = data_offset;  // of the first request's data
  must(unmap(where));
  answering_ = false;
  next_ = 0;
  const unsigned before = misses_;
  add("two", true);
  ASSERT_TRUE(soon([&] { return misses_ > before; }));
  EXPECT_TRUE(stays_silent());
  must(map(where));
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceIotlb, an_invalidation_is_answered_when_no_request_uses_the_mapping_any_more) {
  start_behind_iommu();
  add("one");
  ASSERT_TRUE(take());
  model_.holding_ = true;
  add("held", true);
  ASSERT_TRUE(soon([&] { return model_.held_ == 1; }));
  std::atomic<bool> revoked = false;
  std::thread revoker([&] {
    must(unmap(data_offset, 64 * page));
    revoked = true;
  });
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_FALSE(revoked);
  workers_->worker(0).run([&] { model_.release_(); });
  revoker.join();
  EXPECT_TRUE(take(1, milliseconds(0)));  // what was written was visible before the answer
}

TEST_F(LocalDeviceIotlb, an_invalidation_of_size_0_revokes_everything) {
  start_behind_iommu();
  add("one");
  ASSERT_TRUE(take());
  answering_ = false;
  must(unmap(0, 0));
  add("two", true);
  EXPECT_TRUE(stays_silent());
  must(map(0, 3, 64 * page));
  must(map(data_offset, 3, 64 * page));
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceIotlb, a_ring_whose_own_pages_are_invalidated_stops_until_they_are_mapped_again) {
  start_behind_iommu();
  add("one");
  ASSERT_TRUE(take());
  answering_ = false;
  must(unmap(0, driver_config_.layout().bytes));
  next_ = 0;  // of buffers that are mapped still
  add("two", true);
  EXPECT_TRUE(stays_silent());
  must(map(0, 3, (driver_config_.layout().bytes + page - 1) / page * page));
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceIotlb, N072_a_miss_says_what_access_is_wanted) {
  start_behind_iommu();
  add("one");
  ASSERT_TRUE(take());
  answering_ = false;
  must(map(data_offset, 1));  // may be read only, but the answer goes there
  next_ = 0;
  const unsigned before = misses_;
  add("two", true);
  ASSERT_TRUE(soon([&] { return misses_ > before; }));
  EXPECT_TRUE(stays_silent());
  must(map(data_offset, 3));
  EXPECT_TRUE(take());
}

TEST_F(LocalDeviceIotlb, H161_a_miss_that_is_never_answered_holds_only_its_ring) {
  answering_ = false;
  start_behind_iommu();
  add("waits for ever", true);
  EXPECT_TRUE(stays_silent());
  EXPECT_TRUE(ask(vhost::GetFeatures{}));
  EXPECT_TRUE(ask(vhost::GetVringBase{0}));
}

TEST_F(LocalDeviceIotlb, H158_updates_outside_the_memory_table_are_refused) {
  start_behind_iommu();
  EXPECT_FALSE(ask(map(memory_size)));
  EXPECT_FALSE(ask(map(memory_size - page, 3, 2 * page)));
  EXPECT_FALSE(ask(map(0, 3, 0)));
}

TEST_F(LocalDeviceIotlb, H160_a_flood_of_updates_keeps_a_bounded_table_and_the_ring_works) {
  start_behind_iommu();
  for (uint64_t i = 0; i < 20'000; ++i) {
    must(vhost::UpdateIotlb{{.iova = {0x8000'0000'0000 + i * page},
                             .size = page,
                             .front_end = {user_base},
                             .permission = 3,
                             .type = vhost::IotlbType::update}});
  }
  add("still translated");
  EXPECT_TRUE(take());
}

// ---- configuration space
// ---------------------------------------------------------------------------------------------

TEST_F(LocalDeviceIotlb, N131_a_change_of_the_configuration_is_announced_and_N044_not_while_suspended) {
  start_behind_iommu();
  add("running");
  ASSERT_TRUE(take());
  model_.announce_change();
  EXPECT_TRUE(soon([&] { return front_end_->config_changes_ == 1; }));
  must(vhost::GetVringBase{0});
  model_.announce_change();
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(front_end_->config_changes_, 1U);
  must(vhost::SetVringKick{0, kick_.copy()});
  EXPECT_TRUE(soon([&] { return front_end_->config_changes_ == 2; }));
}

TEST_F(LocalDeviceTest, N107_every_offset_and_size_of_the_configuration_is_answered_in_full) {
  for (uint32_t offset = 0; offset <= 256; ++offset) {
    for (uint32_t size : {0U, 1U, 7U, 8U, 9U, 256U - offset}) {
      const auto config = ask(vhost::GetConfig{.offset = offset, .size = size});
      if (offset + size > 256) {
        EXPECT_FALSE(config);
      } else {
        ASSERT_TRUE(config);
        EXPECT_EQ(config->bytes.size(), size);
      }
    }
  }
  EXPECT_FALSE(ask(vhost::GetConfig{.offset = 0xffffffff, .size = 2}));
}

TEST_F(LocalDeviceTest, H151_a_write_beyond_the_configuration_is_refused) {
  EXPECT_TRUE(ask(vhost::SetConfig{{.offset = 1, .bytes = std::vector<std::byte>(7)}}));
  EXPECT_FALSE(ask(vhost::SetConfig{{.offset = 1, .bytes = std::vector<std::byte>(8)}}));
  EXPECT_FALSE(ask(vhost::SetConfig{{.offset = 0xffffffff, .bytes = std::vector<std::byte>(8)}}));
}

TEST_F(LocalDeviceTest, what_is_not_offered_is_refused) {
  EXPECT_FALSE(ask(vhost::GpuSetSocket{}));
  EXPECT_FALSE(ask(vhost::GetSharedObject{}));
  const uint64_t capabilities = ask(vhost::GetProtocolFeatures{})->bits;
  for (const unsigned number :
       {vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT, vhost::VHOST_USER_PROTOCOL_F_SHARED_OBJECT}) {
    EXPECT_EQ(capabilities & bit(number), 0U);
  }
}

// QEMU before 8.0 stops a device so, also to migrate it.
TEST_F(LocalDeviceTest, a_base_that_is_asked_for_after_status_0_is_where_the_ring_stopped) {
  start();
  for (int i = 0; i < 5; ++i) {
    add("before");
    ASSERT_TRUE(take());
  }
  must(vhost::SetStatus{0});
  EXPECT_EQ(ask(vhost::GetVringBase{0})->value, 5U);
}

TEST_F(LocalDeviceTest, a_front_end_may_leave_and_another_come_any_number_of_times) {
  for (int round = 0; round < 100; ++round) {
    start();
    add(fmt::format("front-end {}", round));
    ASSERT_TRUE(take());
    device_->disconnect();
    ASSERT_FALSE(take(1, milliseconds(0)));
  }
}

// Whose driver is as fast as the device: what is used is available again at once.
class Mill final : public Model {
 public:
  static constexpr unsigned most = 200'000;

  [[nodiscard]] uint32_t device_id() const override { return 63; }
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] uint16_t queue_count() const override { return 1; }
  std::unique_ptr<Queue> start_queue(QueueLoop& loop) override {
    return std::make_unique<Stone>(*this, loop);
  }

  std::function<void(uint16_t head)> offer_again_;  // worker's thread
  std::atomic<unsigned> turned_ = 0;                // chains
  std::atomic<unsigned> when_others_ = 0;           // turned_, when what was posted at the first of them ran

 private:
  class Stone final : public Queue {
   public:
    Stone(Mill& mill, QueueLoop& loop) : mill_(mill), loop_(loop) {}
    void process(ring::Chain chain) override {
      const uint16_t head = chain.index();
      loop_.complete(std::move(chain), 0);
      if (mill_.turned_ == 0)
        loop_.worker().post([&mill = mill_] { mill.when_others_ = mill.turned_.load(); });
      if (++mill_.turned_ < most) mill_.offer_again_(head);
    }

   private:
    Mill& mill_;
    QueueLoop& loop_;
  };
};

TEST_F(LocalDeviceTest, A145_a_driver_as_fast_as_the_device_does_not_keep_the_worker_from_others) {
  Mill mill;
  constexpr uint16_t heads = 48;  // always more than are popped together
  mill.offer_again_ = [this, index = heads](uint16_t head) mutable {
    std::byte* const available = memory_.data() + driver_config_.layout().driver;
    memory::store<uint16_t>(available + 4 + index % 64 * 2, head);
    memory::store<uint16_t>(available + 2, ++index, std::memory_order_release);
  };
  device_ = std::make_unique<LocalDevice>(mill, *workers_, LocalDevice::Options{});
  start();
  const ring::Buffer buffer{.address = {guest_base + data_offset}, .length = 4};
  std::visit(
      [&](auto& driver) {
        for (int i = 0; i < heads; ++i) ASSERT_TRUE(driver.add({.readable = {&buffer, 1}, .writable = {}}));
        (void)driver.publish();
      },
      *driver_);
  kick_.signal();
  EXPECT_TRUE(soon([&] { return mill.turned_ >= Mill::most && mill.when_others_ > 0; }));
  EXPECT_LT(mill.when_others_, 1000U);
  EXPECT_FALSE(err_.arrived(milliseconds(0)));
  device_.reset();
}

TEST_F(LocalDeviceTest, H034_a_storm_of_kicks_does_not_keep_other_work_from_the_worker) {
  start();
  std::atomic<bool> storming = true;
  std::thread storm([&] {
    while (storming) kick_.signal();
  });
  for (int i = 0; i < 200; ++i) {
    add("in the storm");
    ASSERT_TRUE(take());
    workers_->worker(0).run([] {});
  }
  storming = false;
  storm.join();
}

}  // namespace
}  // namespace ringway::engine
