// For the tests of hostile front-ends: two devices served over sockets by one worker, as `ringway serve`
// does, and front-ends that send what they like. One device is attacked; the other, and whoever comes next,
// must not notice.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY 1
#endif
#include <linux/virtio_ring.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/check/wire.h"
#include "ringway/engine/rig_test.h"
#include "ringway/user/listener.h"
#include "ringway/user/peer_test.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

using namespace std::chrono_literals;
using check::payload;
using user::testing::Bytes;
using user::testing::open_fds;
using vhost::bit;

// Message numbers, as the specification has them.
enum Id : uint32_t {
  get_features = 1,
  set_features,
  set_owner,
  reset_owner,
  set_mem_table,
  set_log_base,
  set_log_fd,
  set_vring_num,
  set_vring_addr,
  set_vring_base,
  get_vring_base,
  set_vring_kick,
  set_vring_call,
  set_vring_err,
  get_protocol_features,
  set_protocol_features,
  get_queue_num,
  set_vring_enable,
  iotlb_msg = 22,
  set_vring_endian,
  get_config,
  set_config,
  reset_device = 34,
  vring_kick,
  get_max_mem_slots,
  add_mem_reg,
  rem_mem_reg,
  set_status,
  get_status,
};

inline constexpr uint64_t modern = bit(VIRTIO_F_VERSION_1) | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
inline constexpr uint64_t usual_protocol =
    bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
    bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) | bit(vhost::VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
    bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | bit(vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN) |
    bit(vhost::VHOST_USER_PROTOCOL_F_BACKEND_REQ);

struct WireRegion {
  uint64_t guest, size, user, offset;
};

// A front-end without manners. Its memory is one file, mapped here too.
class FrontEnd {
 public:
  static constexpr uint64_t size = 1 << 20;
  static constexpr uint64_t guest_base = 0x10'0000;
  static constexpr uint64_t user_base = 0x7000'0000'0000;
  static constexpr uint64_t ring_area = 0x10000;  // of each ring, from the start of the memory
  static constexpr uint64_t data = 0x80000;

  explicit FrontEnd(const std::string& path) : peer_(std::move(user::connect_to(path).value())) {}

  user::testing::Peer& peer() { return peer_; }
  [[nodiscard]] const UniqueFd& file() const { return file_; }
  [[nodiscard]] std::byte* memory() const { return memory_.data(); }

  static user::Frame frame(uint32_t id, Bytes payload, std::vector<UniqueFd> fds = {}) {
    user::Frame one{
        .header = {.request = id, .flags = user::version, .size = static_cast<uint32_t>(payload.size())}};
    one.payload = std::move(payload);
    one.fds = std::move(fds);
    return one;
  }
  void send(uint32_t id, Bytes payload = {}, std::vector<UniqueFd> fds = {}) {
    peer_.send(frame(id, std::move(payload), std::move(fds)));
  }
  // What the acknowledgement says: 0 is success. Needs REPLY_ACK.
  uint64_t ack(uint32_t id, Bytes payload = {}, std::vector<UniqueFd> fds = {}) {
    user::Frame one = frame(id, std::move(payload), std::move(fds));
    one.header.flags |= user::need_reply_flag;
    const user::Frame reply = peer_.ask(one);
    EXPECT_EQ(reply.header.request, id);
    return user::testing::u64_of(reply);
  }
  uint64_t get(uint32_t id) { return user::testing::u64_of(peer_.ask(frame(id, {}))); }
  // Everything that was sent before has been dealt with.
  void barrier() { EXPECT_NE(get(get_features), 0U); }

  void hello(uint64_t features = modern, uint64_t protocol = usual_protocol) {
    features_ = features;
    EXPECT_NE(get(get_features) & bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES), 0U);
    get(get_protocol_features);
    send(set_protocol_features, payload(protocol));
    send(set_owner);
    send(set_features, payload(features));
  }
  [[nodiscard]] static WireRegion whole() { return {guest_base, size, user_base, 0}; }
  [[nodiscard]] UniqueFd copy() const { return std::move(file_.duplicate().value()); }
  [[nodiscard]] std::vector<UniqueFd> copies(size_t count) const {
    std::vector<UniqueFd> fds;
    for (size_t i = 0; i < count; ++i) fds.push_back(copy());
    return fds;
  }
  uint64_t share(const std::vector<WireRegion>& regions) {
    Bytes bytes = payload(static_cast<uint32_t>(regions.size()), uint32_t{0});
    for (const WireRegion& region : regions) {
      const Bytes one = payload(region);
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    return ack(set_mem_table, bytes, copies(regions.size()));
  }
  static std::vector<UniqueFd> one(UniqueFd fd) {
    std::vector<UniqueFd> fds;
    fds.push_back(std::move(fd));
    return fds;
  }
  uint64_t add_region(const WireRegion& region, uint64_t padding = 0) {
    return ack(add_mem_reg, payload(padding, region), one(copy()));
  }
  uint64_t remove_region(const WireRegion& region) { return ack(rem_mem_reg, payload(uint64_t{0}, region)); }

  // A driver half for ring `index`, in its own part of the memory.
  void make_driver(uint32_t index, uint32_t entries = 16, uint32_t base = 0) {
    Ring& ring = ring_at(index);
    const ring::Format format = ring::Format::of(features_, false);
    ring.config = {.size = entries,
                   .format = format,
                   .base = ring::RingBase::from_wire(base, format.packed),
                   .area = memory() + index * ring_area,
                   .address = {guest_base + index * ring_area}};
    ring.driver.emplace(ring::make_driver(ring.config).value());
  }
  [[nodiscard]] ring::DriverLayout layout(uint32_t index) { return ring_at(index).config.layout(); }
  Bytes address(uint32_t index) {
    const ring::DriverLayout at = layout(index);
    const uint64_t base = user_base + index * ring_area;
    return payload(index, uint32_t{0}, base + at.desc, base + at.device, base + at.driver, uint64_t{0});
  }
  void describe(uint32_t index) {
    Ring& ring = ring_at(index);
    EXPECT_EQ(ack(set_vring_num, payload(index, ring.config.size)), 0U);
    EXPECT_EQ(ack(set_vring_base, payload(index, ring.config.base.to_wire(ring.config.format.packed))), 0U);
    EXPECT_EQ(ack(set_vring_addr, address(index)), 0U);
    EXPECT_EQ(ack(set_vring_call, payload(uint64_t{index}), one(ring.call.copy())), 0U);
    EXPECT_EQ(ack(set_vring_err, payload(uint64_t{index}), one(ring.err.copy())), 0U);
    EXPECT_TRUE(ring.call.arrived());
  }
  uint64_t kick_fd(uint32_t index) {
    return ack(set_vring_kick, payload(uint64_t{index}), one(ring_at(index).kick.copy()));
  }
  uint64_t enable(uint32_t index, uint32_t on = 1) { return ack(set_vring_enable, payload(index, on)); }
  void start(uint32_t index, uint32_t entries = 16) {
    make_driver(index, entries, features_ & bit(VIRTIO_F_RING_PACKED) ? 0x80008000 : 0);
    describe(index);
    EXPECT_EQ(enable(index), 0U);
    EXPECT_EQ(kick_fd(index), 0U);
  }
  // All that is needed before requests are served.
  void set_up(uint64_t features = modern, uint64_t protocol = usual_protocol, uint32_t rings = 1) {
    hello(features, protocol);
    EXPECT_EQ(share({whole()}), 0U);
    for (uint32_t index = 0; index < rings; ++index) start(index);
  }
  // Stops a ring; where it would go on.
  uint32_t stop(uint32_t index) {
    const user::Frame reply = peer_.ask(frame(get_vring_base, payload(index, uint32_t{0})));
    return static_cast<uint32_t>(user::testing::u64_of(reply) >> 32);
  }

  // Makes a request available: the device copies its text.
  void add(const std::string& text, uint32_t index = 0, bool kick = true) {
    Ring& ring = ring_at(index);
    const uint64_t in = data + next_++ % 64 * 4096;
    std::memcpy(memory() + in, text.data(), text.size());
    std::memset(memory() + in + 2048, 0, 2048);
    const auto length = static_cast<uint32_t>(text.size());
    const ring::Buffer readable{.address = {guest_base + in}, .length = length};
    const ring::Buffer writable{.address = {guest_base + in + 2048}, .length = length};
    std::visit(
        [&](auto& driver) {
          ASSERT_TRUE(driver.add({.readable = {&readable, 1}, .writable = {&writable, 1}}));
          (void)driver.publish();
        },
        *ring.driver);
    ring.expected.push_back({in + 2048, text});
    if (kick) ring.kick.signal();
  }
  // The oldest request comes back, right, within the time.
  [[nodiscard]] bool take(uint32_t index = 0, std::chrono::milliseconds within = 5s) {
    Ring& ring = ring_at(index);
    const auto end = std::chrono::steady_clock::now() + within;
    while (std::chrono::steady_clock::now() < end) {
      const auto used = std::visit([](auto& driver) { return driver.take_used(); }, *ring.driver);
      if (!used) return false;
      if (*used) {
        const auto [at, text] = ring.expected.front();
        ring.expected.pop_front();
        return std::memcmp(memory() + at, text.data(), text.size()) == 0;
      }
      std::this_thread::sleep_for(1ms);
    }
    return false;
  }
  [[nodiscard]] bool works(uint32_t index = 0) {
    add(fmt::format("request {}", next_), index);
    return take(index);
  }
  [[nodiscard]] bool stays_silent(uint32_t index = 0) { return !take(index, 50ms); }
  [[nodiscard]] bool broke(uint32_t index = 0) { return ring_at(index).err.arrived(); }

  struct Ring {
    engine::Event kick, call, err;
    ring::DriverConfig config;
    std::optional<ring::Driver> driver;
    std::deque<std::pair<uint64_t, std::string>> expected;
  };
  Ring& ring_at(uint32_t index) {
    while (rings_.size() <= index) rings_.push_back(std::make_unique<Ring>());
    return *rings_[index];
  }

 private:
  user::testing::Peer peer_;
  UniqueFd file_ = [] {
    UniqueFd fd(::memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), size), 0);
    return fd;
  }();
  Mapping memory_ = std::move(Mapping::of_file(file_.get(), size, 0).value());
  uint64_t features_ = 0;
  std::vector<std::unique_ptr<Ring>> rings_;
  uint64_t next_ = 0;
};

// A model as it is served.
class Served final : public user::SessionOwner {
 public:
  Served(engine::Model& model, engine::Workers& workers)
      : model_(model), engine_(model, workers, {.max_mem_slots = 32, .offer_inband_notifications = true}) {}
  Result<vhost::Device*> connected() override {
    contract_.emplace(engine_, vhost::Contract::Limits{.queues = model_.queue_count(),
                                                       .ring_size = model_.max_queue_size()});
    return &*contract_;
  }
  void disconnected() override {
    engine_.disconnect();
    contract_.reset();
    ++sessions_ended;
  }
  std::atomic<unsigned> sessions_ended = 0;

 private:
  engine::Model& model_;
  engine::LocalDevice engine_;
  std::optional<vhost::Contract> contract_;
};

inline size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);)
    count += line.find("memfd:hostile") != std::string::npos ? 1 : 0;
  return count;
}

class HostileFrontEnd : public testing::Test {
 protected:
  HostileFrontEnd() {
    EXPECT_TRUE(listener_->listen(attacked_path_, attacked_));
    EXPECT_TRUE(listener_->listen(other_path_, other_));
    neighbour_ = std::make_unique<FrontEnd>(other_path_);
    neighbour_->set_up();
    EXPECT_TRUE(neighbour_->works());
    fds_before_ = open_fds();
    mappings_before_ = mappings();
    hostile_ = std::make_unique<FrontEnd>(attacked_path_);
  }

  // After every test: the neighbour was served, all that the attacker brought is gone, and the next front-end
  // is served.
  void TearDown() override {
    EXPECT_TRUE(neighbour_->works());
    hostile_.reset();
    echo_.holding_ = false;
    EXPECT_TRUE(soon([&] { return attacked_.sessions_ended == 1; }));
    EXPECT_TRUE(soon([&] { return open_fds() == fds_before_; }))
        << open_fds() << " instead of " << fds_before_;
    EXPECT_TRUE(soon([&] { return mappings() == mappings_before_; }));
    hostile_ = std::make_unique<FrontEnd>(attacked_path_);
    hostile_->set_up();
    EXPECT_TRUE(hostile_->works());
    hostile_.reset();
    neighbour_.reset();
    listener_->stop();
    std::filesystem::remove_all(folder_);
  }

  template <class Condition>
  static bool soon(Condition condition) {
    for (int i = 0; i < 3000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(1ms);
    }
    return false;
  }

  const std::string folder_ = [] {
    std::string name = std::filesystem::temp_directory_path() / "ringway-hostile-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    return name;
  }();
  const std::string attacked_path_ = folder_ + "/attacked";
  const std::string other_path_ = folder_ + "/other";
  engine::EchoModel echo_{4};
  engine::EchoModel other_echo_{1};
  std::unique_ptr<engine::Workers> workers_ = engine::Workers::start({.count = 1}).value();
  Served attacked_{echo_, *workers_};
  Served other_{other_echo_, *workers_};
  std::unique_ptr<user::Listener> listener_ = user::Listener::start().value();
  std::unique_ptr<FrontEnd> neighbour_;
  std::unique_ptr<FrontEnd> hostile_;
  size_t fds_before_ = 0;
  size_t mappings_before_ = 0;
};

}  // namespace ringway::tools
