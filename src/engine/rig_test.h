// What the engine's tests share: a front-end's memory, one ring in it, and a model that echoes or holds what
// it is given.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ringway/engine/local_device.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/features.h"

namespace ringway::engine {

// Copies what is readable to what is writable; while `holding`, keeps chains until release().
class EchoModel final : public Model {
 public:
  explicit EchoModel(uint16_t queues = 2) : queues_(queues) {}
  [[nodiscard]] uint32_t device_id() const override { return 63; }
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] uint16_t queue_count() const override { return queues_; }
  [[nodiscard]] uint32_t max_queue_size() const override { return 1024; }
  [[nodiscard]] uint32_t config_size() const override { return 8; }
  void read_config(uint32_t offset, std::span<std::byte> to) const override {
    std::ranges::copy(std::span(config_).subspan(offset, to.size()), to.begin());
  }
  Result<> write_config(uint32_t offset, std::span<const std::byte> from, bool) override {
    std::ranges::copy(from, config_.begin() + offset);
    return {};
  }
  void reset() override { ++resets_; }
  [[nodiscard]] bool runs_disabled(uint16_t) const override { return runs_disabled_; }
  [[nodiscard]] bool takes_mtu() const override { return true; }
  Result<> set_mtu(uint16_t mtu) override {
    mtu_ = mtu;
    return {};
  }
  [[nodiscard]] bool announces() const override { return true; }
  Result<> announce(const std::array<std::byte, 6>& mac) override {
    announced_ = mac;
    return {};
  }
  std::unique_ptr<Queue> start_queue(QueueLoop& loop) override;
  void announce_change() const { config_changed(); }

  std::atomic<bool> holding_ = false;
  std::atomic<bool> failing_ = false;
  std::atomic<bool> swallows_ = false;  // whole batches, without an answer
  std::atomic<unsigned> held_ = 0;
  std::atomic<unsigned> resets_ = 0;
  bool runs_disabled_ = false;
  std::atomic<int> enabled_ = -1;  // of the queue that was started last
  uint16_t mtu_ = 0;
  CallModeration moderation_;  // of queues that start
  std::array<std::byte, 6> announced_{};
  // Worker's thread: ends every held chain.
  std::function<void()> release_;
  std::atomic<size_t> appetite_ = SIZE_MAX;  // for so many chains
  std::function<bool()> take_available_;     // worker's thread
  std::atomic<unsigned> flushes_ = 0;

 private:
  const uint16_t queues_;
  std::array<std::byte, 8> config_{};
};

class EchoQueue final : public Queue {
 public:
  EchoQueue(EchoModel& model, QueueLoop& loop) : model_(model), loop_(loop) {
    model_.take_available_ = [this] { return loop_.take_available(); };
    model_.release_ = [this] {
      while (!kept_.empty()) {
        echo(std::move(kept_.front()));
        kept_.pop_front();
      }
    };
  }
  void process(ring::Chain chain) override {
    if (model_.appetite_ != SIZE_MAX) --model_.appetite_;
    if (model_.failing_) return loop_.fail(std::move(chain), Error{.what = "the test says so"});
    if (!model_.holding_) return echo(std::move(chain));
    kept_.push_back(std::move(chain));
    ++model_.held_;
  }
  void flush() override { ++model_.flushes_; }
  [[nodiscard]] size_t appetite() const override { return model_.appetite_; }
  bool process_batch(std::span<ring::Chain> chains) override {
    if (!model_.swallows_) return false;
    loop_.complete_unwritten(chains);
    return true;
  }

 private:
  void echo(ring::Chain chain) {
    ring::Reader reader = chain.reader();
    ring::Writer writer = chain.writer();
    std::vector<std::byte> bytes(std::min(reader.remaining(), writer.remaining()));
    reader.read(std::span(bytes));
    writer.write(std::span<const std::byte>(bytes));
    loop_.complete(std::move(chain), static_cast<uint32_t>(bytes.size()));
  }
  EchoModel& model_;
  QueueLoop& loop_;
  std::deque<ring::Chain> kept_;
};

inline std::unique_ptr<Queue> EchoModel::start_queue(QueueLoop& loop) {
  enabled_ = loop.enabled() ? 1 : 0;
  loop.moderate_calls(moderation_);
  return std::make_unique<EchoQueue>(*this, loop);
}

// A notification fd of the test's own, and the copies that it gives away.
class Event {
 public:
  [[nodiscard]] UniqueFd copy() const { return *fd_.duplicate(); }
  void signal() const {
    const uint64_t one = 1;
    ASSERT_EQ(::write(fd_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  }
  // Waits up to `wait` for an event and takes it.
  [[nodiscard]] bool arrived(std::chrono::milliseconds wait = std::chrono::seconds(5)) const {
    pollfd entry{.fd = fd_.get(), .events = POLLIN};
    uint64_t count = 0;
    return ::poll(&entry, 1, static_cast<int>(wait.count())) == 1 &&
           ::read(fd_.get(), &count, sizeof count) > 0;
  }

 private:
  UniqueFd fd_ = *make_eventfd();
};

class EngineRig : public testing::Test {
 protected:
  static constexpr uint64_t memory_size = 4 << 20;
  static constexpr uint64_t user_base = 0x7000'0000'0000;
  static constexpr uint64_t guest_base = 0x10'0000;
  static constexpr uint64_t data_offset = 2 << 20;
  static constexpr uint64_t modern =
      vhost::bit(VIRTIO_F_VERSION_1) | vhost::bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);

  template <class R>
  auto ask(R request) {
    return vhost::call(*device_, std::move(request));
  }
  template <class R>
  void must(R request) {
    const auto reply = ask(std::move(request));
    ASSERT_TRUE(reply) << reply.error().to_string();
  }

  [[nodiscard]] vhost::MemoryRegion region(uint64_t offset, uint64_t size) const {
    return {.layout = {.guest = {guest_base + offset},
                       .size = size,
                       .front_end = {user_base + offset},
                       .file_offset = offset},
            .fd = *memory_fd_.duplicate()};
  }
  void share_memory() {
    vhost::SetMemTable table;
    table.regions.push_back(region(0, memory_size));
    must(std::move(table));
  }

  // A fresh driver half at the start of the memory.
  void make_driver(uint64_t features, uint32_t size = 64, uint64_t address_base = guest_base) {
    features_ = features;
    const ring::Format format = ring::Format::of(features, false);
    driver_config_ = {.size = size, .format = format, .area = memory_.data(), .address = {address_base}};
    driver_.emplace(*ring::make_driver(driver_config_));
  }
  void describe_ring(uint64_t base = user_base, uint32_t index = 0) {
    const ring::DriverLayout layout = driver_config_.layout();
    must(vhost::SetVringNum{index, driver_config_.size});
    must(vhost::SetVringBase{index, driver_config_.base.to_wire(driver_config_.format.packed)});
    must(vhost::SetVringAddr{.ring = index,
                             .desc = base + layout.desc,
                             .used = base + layout.device,
                             .avail = base + layout.driver});
  }
  // Everything that a front-end does until buffers are served.
  void start(uint64_t features = modern) {
    must(vhost::SetFeatures{features});
    share_memory();
    make_driver(features);
    describe_ring();
    must(vhost::SetVringCall{0, call_.copy()});
    must(vhost::SetVringErr{0, err_.copy()});
    must(vhost::SetVringEnable{0, 1});
    must(vhost::SetVringKick{0, kick_.copy()});
    EXPECT_TRUE(call_.arrived());  // the one that says: look whether you missed something
  }

  // Makes one request available and kicks if the device wants it. `text` is echoed `data_offset` + 4096 * its
  // number.
  void add(const std::string& text, bool always_kick = false) {
    const uint64_t in = data_offset + next_ * 4096 % (memory_size - data_offset);
    next_ += 1;
    std::memcpy(memory_.data() + in, text.data(), text.size());
    const ring::Buffer readable{.address = {driver_config_.address.value + in},
                                .length = static_cast<uint32_t>(text.size())};
    const ring::Buffer writable{.address = {driver_config_.address.value + in + 2048},
                                .length = static_cast<uint32_t>(text.size())};
    std::visit(
        [&](auto& driver) {
          ASSERT_TRUE(driver.add({.readable = {&readable, 1}, .writable = {&writable, 1}}));
          if (driver.publish() || always_kick) kick_.signal();
        },
        *driver_);
    expected_.push_back({in + 2048, text});
  }
  // Waits until `count` requests came back, and checks that each was echoed.
  [[nodiscard]] bool take(size_t count = 1, std::chrono::milliseconds wait = std::chrono::seconds(5)) {
    const auto end = std::chrono::steady_clock::now() + wait;
    while (count > 0) {
      const auto used = std::visit([](auto& driver) { return driver.take_used(); }, *driver_);
      EXPECT_TRUE(used) << used.error().to_string();
      if (!used) return false;
      if (*used) {
        auto [at, text] = expected_.front();
        expected_.pop_front();
        EXPECT_EQ((*used)->written, model_.swallows_ ? 0 : text.size());
        if (model_.swallows_) text.assign(text.size(), '\0');
        EXPECT_EQ(std::memcmp(memory_.data() + at, text.data(), text.size()), 0) << text;
        --count;
      } else if (std::chrono::steady_clock::now() > end) {
        return false;
      } else {
        std::this_thread::yield();
      }
    }
    return true;
  }
  [[nodiscard]] bool stays_silent(std::chrono::milliseconds wait = std::chrono::milliseconds(50)) {
    return !take(1, wait);
  }
  template <class Condition>
  [[nodiscard]] static bool soon(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  UniqueFd memory_fd_ = [] {
    UniqueFd fd(::memfd_create("engine-test", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(fd.get(), memory_size), 0);
    return fd;
  }();
  Mapping memory_ = *Mapping::of_file(memory_fd_.get(), memory_size, 0);
  Event kick_, call_, err_;
  EchoModel model_;
  std::unique_ptr<Workers> workers_ = *Workers::start({.count = 1});
  std::unique_ptr<LocalDevice> device_ = std::make_unique<LocalDevice>(
      model_, *workers_, LocalDevice::Options{.offer_inband_notifications = true});
  uint64_t features_ = 0;
  ring::DriverConfig driver_config_;
  std::optional<ring::Driver> driver_;
  uint64_t next_ = 0;
  std::deque<std::pair<uint64_t, std::string>> expected_;
};

}  // namespace ringway::engine
