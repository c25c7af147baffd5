// The in-flight area as front-ends give and take it, and stops that do not wait.
#include "ringway/ring/inflight.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "ringway/base/log.h"
#include "ringway/engine/rig_test.h"
#include "ringway/engine/standstill.h"

namespace ringway::engine {
namespace {

using std::chrono::milliseconds;
using vhost::bit;

class InflightDevice : public EngineRig, public testing::WithParamInterface<bool> {
 protected:
  [[nodiscard]] static uint64_t features() { return modern | (GetParam() ? bit(VIRTIO_F_RING_PACKED) : 0); }
  // As start(), with an area; what the test does not say is as the first start has left it.
  void start_tracked() {
    must(vhost::SetFeatures{features()});
    auto area = ask(vhost::GetInflightFd{1, 64});
    ASSERT_TRUE(area);
    area_ = *std::move(area);
    give_area();
    start(features());
  }
  void give_area() {
    must(vhost::SetInflightFd{{.size = area_.size,
                               .offset = area_.offset,
                               .queues = area_.queues,
                               .queue_size = area_.queue_size,
                               .fd = *area_.fd.duplicate()}});
  }
  // The device has died with what it held; another one comes.
  void start_successor(uint32_t base) {
    model_.holding_ = false;
    must(vhost::SetFeatures{features()});
    share_memory();
    give_area();
    const ring::DriverLayout layout = driver_config_.layout();
    must(vhost::SetVringNum{0, driver_config_.size});
    must(vhost::SetVringBase{0, base});
    must(vhost::SetVringAddr{.ring = 0,
                             .desc = user_base + layout.desc,
                             .used = user_base + layout.device,
                             .avail = user_base + layout.driver});
    must(vhost::SetVringCall{0, call_.copy()});
    must(vhost::SetVringErr{0, err_.copy()});
    must(vhost::SetVringEnable{0, 1});
    must(vhost::SetVringKick{0, kick_.copy()});
  }
  void hold(unsigned count) {
    model_.holding_ = true;
    for (unsigned i = 0; i < count; ++i) add(fmt::format("held {}", i), true);
    ASSERT_TRUE(soon([&] { return model_.held_ == count; }));
  }
  void release() {
    workers_->worker(0).run([this] { model_.release_(); });
  }
  vhost::InflightArea area_;
};

TEST_P(InflightDevice, H313_N129_a_stop_that_does_not_wait_leaves_what_is_in_flight_to_the_next_start) {
  start_tracked();
  hold(3);
  const auto base = ask(vhost::GetVringBaseSkipDrain{0});
  ASSERT_TRUE(base) << "it did not wait for what the disk holds";
  const std::vector<std::byte> suspended(memory_.data(), memory_.data() + data_offset);
  release();
  EXPECT_TRUE(std::ranges::equal(suspended, std::span(memory_.data(), data_offset)))
      << "the ring is as it was when it was stopped";
  EXPECT_TRUE(stays_silent());
  start_successor(base->value);
  EXPECT_TRUE(take(3)) << "done again, in order";
  add("and on");
  EXPECT_TRUE(take());
}

TEST_P(InflightDevice, a_start_waits_for_what_a_stop_has_left) {
  start_tracked();
  hold(2);
  const auto base = ask(vhost::GetVringBaseSkipDrain{0});
  ASSERT_TRUE(base);
  std::thread late([this] {
    std::this_thread::sleep_for(milliseconds(100));
    release();
  });
  const auto begin = std::chrono::steady_clock::now();
  start_successor(base->value);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(50));
  late.join();
  EXPECT_TRUE(take(2));
}

TEST_P(InflightDevice, a_standstill_is_not_reached_before_what_a_stop_has_left_has_ended) {
  start_tracked();
  hold(2);
  ASSERT_TRUE(ask(vhost::GetVringBaseSkipDrain{0}));
  const auto in = [](milliseconds time) { return std::chrono::steady_clock::now() + time; };
  {
    LocalDevice::Standstill given_up(*device_);
    EXPECT_FALSE(given_up.reached(in(milliseconds(20))));
  }
  LocalDevice::Standstill still(*device_);
  EXPECT_FALSE(still.reached(in(milliseconds(20))));
  release();
  EXPECT_TRUE(still.reached(in(milliseconds(5000))));
}

TEST_P(InflightDevice, without_an_area_every_stop_waits) {
  start(features());
  hold(2);
  std::thread late([this] {
    std::this_thread::sleep_for(milliseconds(50));
    release();
  });
  must(vhost::GetVringBaseSkipDrain{0});
  late.join();
  EXPECT_TRUE(take(2));
}

TEST_P(InflightDevice, an_ordinary_stop_waits_and_leaves_nothing_in_flight) {
  start_tracked();
  hold(2);
  std::thread late([this] {
    std::this_thread::sleep_for(milliseconds(50));
    release();
  });
  const auto base = ask(vhost::GetVringBase{0});
  late.join();
  ASSERT_TRUE(base);
  EXPECT_TRUE(take(2));
  start_successor(base->value);
  EXPECT_TRUE(stays_silent());
  add("and on");
  EXPECT_TRUE(take());
}

// The guest has it among its memory, and has the device write there what it likes.
TEST_P(InflightDevice, H118_memory_that_is_the_in_flight_area_harms_only_its_ring) {
  constexpr uint64_t area_address = 0x9000'0000;
  for (const std::byte pattern : {std::byte{0xff}, std::byte{0x01}, std::byte{0x55}, std::byte{0x00}}) {
    start_tracked();
    const auto bytes = static_cast<uint32_t>(std::min<uint64_t>(area_.size, 1024));
    must(vhost::AddMemReg{.region = {.layout = {.guest = {area_address},
                                                .size = area_.size,
                                                .front_end = {0x7900'0000'0000},
                                                .file_offset = area_.offset},
                                     .fd = *area_.fd.duplicate()}});
    std::memset(memory_.data() + data_offset, static_cast<int>(pattern), bytes);
    const ring::Buffer readable{.address = {guest_base + data_offset}, .length = bytes};
    const ring::Buffer writable{.address = {area_address}, .length = bytes};
    ring::Driver* const driver = driver_ ? &*driver_ : nullptr;
    ASSERT_NE(driver, nullptr);
    for (int i = 0; i < 4; ++i) {
      std::visit(
          [&](auto& format) {
            ASSERT_TRUE(format.add({.readable = {&readable, 1}, .writable = {&writable, 1}}));
            (void)format.publish();
          },
          *driver);
      kick_.signal();
    }
    EXPECT_TRUE(soon([&] {
      const auto used = std::visit([](auto& format) { return format.take_used(); }, *driver);
      return used && *used;
    }));
    if (const auto base = ask(vhost::GetVringBase{0})) {
      must(vhost::SetVringBase{0, base->value});
      (void)ask(vhost::SetVringKick{0, kick_.copy()});
    }
    device_->disconnect();
    start(features());
    add("another one is served");
    EXPECT_TRUE(take());
    device_->disconnect();
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, InflightDevice, testing::Values(false, true),
                         [](const auto& instance) { return instance.param ? "packed" : "split"; });

using InflightArea = EngineRig;

TEST_F(InflightArea, H206_without_one_a_ring_does_not_begin_elsewhere_than_at_its_used_index) {
  for (const uint64_t features : {modern, modern | bit(VIRTIO_F_RING_PACKED)}) {
    device_->disconnect();
    start(features);
    add("one");
    ASSERT_TRUE(take());
    const auto base = ask(vhost::GetVringBase{0});
    ASSERT_TRUE(base);
    const bool packed = features != modern;
    for (const uint32_t wrong :
         packed ? std::vector<uint32_t>{0x80018002, 0x80028001} : std::vector<uint32_t>{0, 2}) {
      must(vhost::SetVringBase{0, wrong});
      EXPECT_FALSE(ask(vhost::SetVringKick{0, kick_.copy()})) << wrong;
    }
    must(vhost::SetVringBase{0, base->value});
    must(vhost::SetVringKick{0, kick_.copy()});
    add("two");
    EXPECT_TRUE(take());
  }
}

TEST_F(InflightArea, without_one_a_ring_in_order_goes_on_at_its_used_index) {
  start(modern | bit(VIRTIO_F_IN_ORDER));
  add("one");
  ASSERT_TRUE(take());
  ASSERT_TRUE(ask(vhost::GetVringBase{0}));
  add("two");
  must(vhost::SetVringBase{0, 2});  // as if "two" had been taken by a back-end that is gone
  must(vhost::SetVringKick{0, kick_.copy()});
  EXPECT_TRUE(take());
}

// A disk without an in-flight area, whose back-end is followed by another.
class UntrackedRestart : public EngineRig, public testing::WithParamInterface<bool> {
 protected:
  [[nodiscard]] static uint64_t features() { return modern | (GetParam() ? bit(VIRTIO_F_RING_PACKED) : 0); }
  // Three are taken, and answered in this order; two more wait. The base at which the next one is to begin.
  uint32_t answer(std::initializer_list<size_t> order) {
    start(features());
    for (int i = 0; i < 3; ++i) add("before");
    EXPECT_TRUE(take(3));
    const uint32_t base = ask(vhost::GetVringBase{0})->value;
    device_->disconnect();
    if (!GetParam()) {
      std::byte* const used = memory_.data() + driver_config_.layout().device + 4;
      const std::vector<std::byte> before(used, used + 3 * size_t{8});
      size_t at = 0;
      for (const size_t which : order) std::memcpy(used + 8 * at++, before.data() + 8 * which, 8);
    }
    add("waiting");
    add("waiting");
    return base;
  }
  // What is logged when the ring begins there.
  std::string restart(uint32_t base) {
    log::set_level(log::Level::warning);
    testing::internal::CaptureStderr();
    must(vhost::SetFeatures{features()});
    share_memory();
    describe_ring();
    must(vhost::SetVringBase{0, base});
    must(vhost::SetVringCall{0, call_.copy()});
    must(vhost::SetVringEnable{0, 1});
    must(vhost::SetVringKick{0, kick_.copy()});
    EXPECT_TRUE(take(2));
    log::set_level(log::Level::error);
    return testing::internal::GetCapturedStderr();
  }
  static constexpr const char* warning =
      "2 requests wait: if that back-end was not stopped but has died, up to 2";
};

TEST_P(UntrackedRestart, behind_answers_in_another_order_is_told) {
  const uint32_t base = answer({1, 0, 2});
  EXPECT_NE(restart(base).find(warning), std::string::npos);
}

TEST_P(UntrackedRestart, is_not_told_where_a_split_ring_shows_that_nothing_is_lost) {
  const uint32_t base = answer({0, 1, 2});
  EXPECT_EQ(restart(base).empty(), !GetParam()) << "a packed ring does not show it";
}

TEST_P(UntrackedRestart, after_an_ordinary_stop_is_not_told) {
  const uint32_t base = answer({1, 0, 2});
  restart(base);
  const auto stopped = ask(vhost::GetVringBase{0});
  ASSERT_TRUE(stopped);
  add("waiting");
  add("waiting");
  EXPECT_EQ(restart(stopped->value), "");
}

INSTANTIATE_TEST_SUITE_P(Formats, UntrackedRestart, testing::Values(false, true),
                         [](const auto& instance) { return instance.param ? "packed" : "split"; });

TEST_F(InflightArea, A117_asking_again_and_again_keeps_nothing) {
  const auto count = [] {
    unsigned fds = 0;
    for (int fd = 0; fd < 4096; ++fd) fds += ::fcntl(fd, F_GETFD) >= 0 ? 1U : 0U;
    return fds;
  };
  ASSERT_TRUE(ask(vhost::GetInflightFd{2, 1024}));
  const unsigned before = count();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(ask(vhost::GetInflightFd{2, 1024}));
  for (int i = 0; i < 200; ++i) {
    auto area = ask(vhost::GetInflightFd{2, 1024});
    ASSERT_TRUE(area);
    must(vhost::SetInflightFd{*std::move(area)});
  }
  EXPECT_LE(count(), before + 1);
}

TEST_F(InflightArea, N077_it_holds_all_queues_and_cannot_shrink) {
  auto area = ask(vhost::GetInflightFd{2, 256});
  ASSERT_TRUE(area);
  struct stat status{};
  ASSERT_EQ(::fstat(area->fd.get(), &status), 0);
  EXPECT_EQ(static_cast<uint64_t>(status.st_size), area->size);
  EXPECT_GE(area->size, 2 * ring::inflight_bytes(256, true));
  EXPECT_EQ(area->offset, 0U);
  EXPECT_NE(::ftruncate(area->fd.get(), 0), 0);
}

TEST_F(InflightArea, H134_one_that_its_file_does_not_hold_is_refused) {
  const uint64_t right = ring::inflight_bytes(64, false);
  struct Wrong {
    uint64_t size;
    uint64_t offset;
    uint16_t queues;
  };
  for (const Wrong wrong :
       {Wrong{0, 0, 1}, Wrong{right - 1, 0, 1}, Wrong{right, 0, 2}, Wrong{2 * right + 1, 0, 2},
        Wrong{right, right + 1, 1}, Wrong{right, UINT64_MAX - 63, 1}, Wrong{UINT64_MAX, 0, 1}}) {
    UniqueFd file(::memfd_create("area", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(2 * right)), 0);
    EXPECT_FALSE(ask(vhost::SetInflightFd{{.size = wrong.size,
                                           .offset = wrong.offset,
                                           .queues = wrong.queues,
                                           .queue_size = 64,
                                           .fd = std::move(file)}}));
  }
}

TEST_F(InflightArea, H070_A125_a_ring_larger_than_its_part_does_not_start) {
  auto area = ask(vhost::GetInflightFd{1, 32});
  ASSERT_TRUE(area);
  must(vhost::SetInflightFd{*std::move(area)});
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring();
  must(vhost::SetVringEnable{0, 1});
  EXPECT_FALSE(ask(vhost::SetVringKick{0, kick_.copy()}));
}

TEST_F(InflightArea, A131_a_queue_that_is_not_in_it_does_not_start) {
  auto area = ask(vhost::GetInflightFd{1, 64});
  ASSERT_TRUE(area);
  must(vhost::SetInflightFd{*std::move(area)});
  must(vhost::SetFeatures{modern});
  share_memory();
  make_driver(modern);
  describe_ring(user_base, 1);
  must(vhost::SetVringEnable{1, 1});
  EXPECT_FALSE(ask(vhost::SetVringKick{1, kick_.copy()}));
}

TEST_F(InflightArea, H145_one_that_is_truncated_under_a_ring_breaks_it_and_nothing_else) {
  UniqueFd file(::memfd_create("area", MFD_CLOEXEC));
  const uint64_t bytes = ring::inflight_bytes(64, false);
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  must(vhost::SetInflightFd{{.size = bytes, .queues = 1, .queue_size = 64, .fd = *file.duplicate()}});
  start();
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  add("into the void", true);
  add("and again", true);
  EXPECT_TRUE(err_.arrived());
  must(vhost::GetVringBase{0});
}

}  // namespace
}  // namespace ringway::engine
