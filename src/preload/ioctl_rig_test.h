// What the tests of the served kernel interface share: a program that uses an IoctlServer over the loop-back
// device, with private memory of its own, and the driver's half of both rings.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ringway/device/port/virtio_net.h"
#include "ringway/engine/workers.h"
#include "ringway/kernel/caller_test.h"
#include "ringway/kernel/ioctl_server.h"
#include "ringway/preload/devices.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/features.h"

namespace ringway::preload {

using port::VIRTIO_NET_F_MRG_RXBUF;

constexpr uint32_t receive = 0;
constexpr uint32_t transmit = 1;

using kernel::test::TestCaller;

class IoctlRig : public testing::Test {
 protected:
  static constexpr size_t memory_size = 1 << 20;
  static constexpr uint64_t guest_base = 0x4000'0000;
  static constexpr uint32_t ring_size = 16;
  size_t header = port::plain_header;  // bytes
  static constexpr uint64_t modern = vhost::bit(VIRTIO_F_VERSION_1);

  IoctlRig() {
    void* at = ::mmap(nullptr, memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(at, MAP_FAILED);
    memory_ = static_cast<std::byte*>(at);
  }
  ~IoctlRig() override {
    server_.reset();
    ::munmap(memory_, memory_size);
  }

  static uint64_t address(const void* at) { return reinterpret_cast<uintptr_t>(at); }
  template <class T>
  long call(unsigned long request, T&& argument) {
    return server_->ioctl(caller_, request, address(&argument));
  }
  long call(unsigned long request) { return server_->ioctl(caller_, request, 0); }

  long set_memory(size_t size = memory_size) {
    struct {
      kernel::MemoryTableHead head;
      vhost_memory_region region;
    } table{};
    table.head.nregions = 1;
    table.region = {.guest_phys_addr = guest_base, .memory_size = size, .userspace_addr = address(memory_)};
    return call(VHOST_SET_MEM_TABLE, table);
  }
  // Area of a ring's driver, and buffers behind it.
  [[nodiscard]] std::byte* area(uint32_t ring) const { return memory_ + ring * memory_size / 2; }
  static constexpr size_t buffers_at = 64 << 10;
  static constexpr size_t buffer_size = 8 << 10;
  [[nodiscard]] std::byte* buffer(uint32_t ring, uint64_t number) const {
    return area(ring) + buffers_at + number % ring_size * buffer_size;
  }
  [[nodiscard]] uint64_t guest(const std::byte* at) const {
    return guest_base + static_cast<uint64_t>(at - memory_);
  }

  void make_driver(uint32_t ring, uint64_t features, ring::RingBase base = {}) {
    configs_[ring] = {.size = ring_size,
                      .format = ring::Format::of(features, false),
                      .base = base,
                      .area = area(ring),
                      .address = {guest(area(ring))}};
    drivers_[ring].emplace(std::get<ring::SplitDriver>(*ring::make_driver(configs_[ring])));
  }
  vhost_vring_addr addresses(uint32_t ring) {
    const ring::DriverLayout layout = configs_[ring].layout();
    return {.index = ring,
            .flags = 0,
            .desc_user_addr = address(area(ring)) + layout.desc,
            .used_user_addr = address(area(ring)) + layout.device,
            .avail_user_addr = address(area(ring)) + layout.driver,
            .log_guest_addr = 0};
  }
  void describe(uint32_t ring) {
    ASSERT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = ring, .num = ring_size}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_BASE, vhost_vring_state{.index = ring, .num = 0}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_ADDR, addresses(ring)), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_KICK, vhost_vring_file{.index = ring, .fd = kicks_[ring].get()}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_CALL, vhost_vring_file{.index = ring, .fd = calls_[ring].get()}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_ERR, vhost_vring_file{.index = ring, .fd = errors_[ring].get()}), 0);
  }
  long bind(uint32_t ring) {
    return call(VHOST_NET_SET_BACKEND, vhost_vring_file{.index = ring, .fd = socket_.get()});
  }
  long unbind(uint32_t ring) {
    return call(VHOST_NET_SET_BACKEND, vhost_vring_file{.index = ring, .fd = VHOST_FILE_UNBIND});
  }
  uint32_t base(uint32_t ring) {
    vhost_vring_state state{.index = ring, .num = 0xdead};
    EXPECT_EQ(call(VHOST_GET_VRING_BASE, state), 0);
    return state.num;
  }
  void set_up(uint64_t features = modern) {
    ASSERT_EQ(call(VHOST_SET_OWNER), 0);
    ASSERT_EQ(call(VHOST_SET_FEATURES, features), 0);
    ASSERT_EQ(set_memory(), 0);
    for (const uint32_t ring : {receive, transmit}) {
      make_driver(ring, features);
      describe(ring);
    }
  }
  // All that a program does until frames are carried.
  void start(uint64_t features = modern) {
    set_up(features);
    for (const uint32_t ring : {receive, transmit}) ASSERT_EQ(bind(ring), 0);
  }

  void kick(uint32_t ring) {
    if (!drivers_[ring]->publish()) return;
    ASSERT_EQ(::eventfd_write(kicks_[ring].get(), 1), 0);
  }
  void add_receive_buffer(uint32_t size = buffer_size) {
    const ring::Buffer writable{.address = {guest(buffer(receive, next_receive_++))}, .length = size};
    ASSERT_TRUE(drivers_[receive]->add({.readable = {}, .writable = {&writable, 1}}));
    kick(receive);
  }
  void send(const std::string& text) {
    std::byte* at = buffer(transmit, next_transmit_++);
    std::memset(at, 0, header);
    std::memcpy(at + header, text.data(), text.size());
    const ring::Buffer readable{.address = {guest(at)},
                                .length = static_cast<uint32_t>(header + text.size())};
    ASSERT_TRUE(drivers_[transmit]->add({.readable = {&readable, 1}, .writable = {}}));
    kick(transmit);
  }
  // Bytes written to the next used buffer; none: none came.
  std::optional<uint32_t> take_used(uint32_t ring, std::chrono::milliseconds wait = std::chrono::seconds(5)) {
    const auto end = std::chrono::steady_clock::now() + wait;
    do {
      const auto used = drivers_[ring]->take_used();
      EXPECT_TRUE(used);
      if (used && *used) return static_cast<uint32_t>((*used)->written);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    } while (std::chrono::steady_clock::now() < end);
    return std::nullopt;
  }
  // The next frame, which lies in one buffer. Empty: none came.
  std::string received() {
    const auto written = take_used(receive);
    if (!written || *written < header) return {};
    const std::byte* at = buffer(receive, next_received_++);
    return {reinterpret_cast<const char*>(at + header), *written - header};
  }
  void echoes(const std::string& text) {
    add_receive_buffer();
    send(text);
    EXPECT_EQ(received(), text);
    EXPECT_TRUE(take_used(transmit));
  }
  static bool signalled(const UniqueFd& fd, int milliseconds = 5000) {
    pollfd entry{.fd = fd.get(), .events = POLLIN};
    return ::poll(&entry, 1, milliseconds) == 1;
  }

  std::byte* memory_ = nullptr;
  std::array<UniqueFd, 2> kicks_{*make_eventfd(), *make_eventfd()};
  std::array<UniqueFd, 2> calls_{*make_eventfd(), *make_eventfd()};
  std::array<UniqueFd, 2> errors_{*make_eventfd(), *make_eventfd()};
  UniqueFd socket_{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = 2, .use_io_uring = false});
  TestCaller caller_;
  std::unique_ptr<kernel::IoctlServer> server_ =
      *kernel::IoctlServer::open({}, [this] { return make_device("loopback", *workers_); });
  std::array<ring::DriverConfig, 2> configs_;
  std::array<std::optional<ring::SplitDriver>, 2> drivers_;
  uint64_t next_receive_ = 0;
  uint64_t next_received_ = 0;
  uint64_t next_transmit_ = 0;
};

}  // namespace ringway::preload
