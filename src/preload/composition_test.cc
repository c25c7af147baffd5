// Both ends of the kernel's interface: a front-end's session over kernel::KernelDevice, which asks a
// DeviceFile as if it were the kernel.
#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <thread>

#include "ringway/base/mapping.h"
#include "ringway/engine/workers.h"
#include "ringway/kernel/kernel_device.h"
#include "ringway/preload/served_file_test.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/contract.h"
#include "ringway/vhost/session.h"

namespace ringway::preload {
namespace {

class KernelInterface : public testing::Test {
 protected:
  static constexpr uint64_t memory_size = 2 << 20;
  static constexpr uint64_t guest_base = 0x8000'0000;
  static constexpr uint64_t user_base = 0x7000'0000'0000;
  static constexpr uint32_t ring_size = 64;
  static constexpr size_t header = 12;

  KernelInterface() {
    EXPECT_EQ(::ftruncate(memory_fd_.get(), memory_size), 0);
    memory_ = *Mapping::of_file(memory_fd_.get(), memory_size, 0);
    UniqueFd backend(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    auto device = kernel::KernelDevice::open(std::make_unique<ServedFile>(*workers_),
                                             *kernel::net_endpoint(std::move(backend)));
    EXPECT_TRUE(device) << device.error().to_string();
    device_ = *std::move(device);
    contract_.emplace(*device_, vhost::Contract::Limits{.queues = 2});
    session_.emplace(*contract_);
  }

  void start(uint32_t ring) {
    const uint64_t at = ring * memory_size / 2;
    const ring::DriverConfig config{.size = ring_size,
                                    .format = ring::Format::of(session_->agreed().features, false),
                                    .area = memory_.data() + at,
                                    .address = {guest_base + at}};
    drivers_[ring].emplace(std::get<ring::SplitDriver>(*ring::make_driver(config)));
    const ring::DriverLayout layout = config.layout();
    const uint64_t base = user_base + at;
    kicks_[ring] = *make_eventfd();
    const auto started = session_->start_queue({.ring = ring,
                                                .size = ring_size,
                                                .desc = base + layout.desc,
                                                .driver = base + layout.driver,
                                                .device = base + layout.device,
                                                .kick = *kicks_[ring].duplicate(),
                                                .call = *make_eventfd(),
                                                .err = {}});
    ASSERT_TRUE(started) << started.error().to_string();
  }
  void add(uint32_t ring, uint64_t number, uint32_t length) {
    const ring::Buffer buffer{.address = {guest_base + offset(ring, number)}, .length = length};
    const ring::Buffers chain = ring == 0 ? ring::Buffers{.readable = {}, .writable = {&buffer, 1}}
                                          : ring::Buffers{.readable = {&buffer, 1}, .writable = {}};
    ASSERT_TRUE(drivers_[ring]->add(chain));
    if (!drivers_[ring]->publish()) return;
    const uint64_t one = 1;
    ASSERT_EQ(::write(kicks_[ring].get(), &one, sizeof one), 8);
  }
  std::optional<uint32_t> take(uint32_t ring) {
    for (int i = 0; i < 10'000; ++i) {
      const auto used = drivers_[ring]->take_used();
      EXPECT_TRUE(used);
      if (used && *used) return static_cast<uint32_t>((*used)->written);
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    return std::nullopt;
  }
  static uint64_t offset(uint32_t ring, uint64_t number) {
    return ring * memory_size / 2 + (128U << 10U) + number % ring_size * 4096;
  }
  void carry(uint64_t number) {
    const std::string text = "frame " + std::to_string(number);
    std::byte* out = memory_.data() + offset(1, number);
    std::memset(out, 0, header);
    std::memcpy(out + header, text.data(), text.size());
    add(0, number, 4096);
    add(1, number, static_cast<uint32_t>(header + text.size()));
    ASSERT_EQ(take(0), header + text.size());
    EXPECT_EQ(std::memcmp(memory_.data() + offset(0, number) + header, text.data(), text.size()), 0);
    EXPECT_TRUE(take(1));
  }

  UniqueFd memory_fd_{::memfd_create("composition", MFD_CLOEXEC)};
  Mapping memory_;
  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = 2, .use_io_uring = false});
  std::unique_ptr<kernel::KernelDevice> device_;
  std::optional<vhost::Contract> contract_;
  std::optional<vhost::Session> session_;
  std::array<std::optional<ring::SplitDriver>, 2> drivers_;
  std::array<UniqueFd, 2> kicks_;
};

TEST_F(KernelInterface, our_client_and_our_server_understand_each_other) {
  ASSERT_TRUE(session_->negotiate({.features = vhost::bit(VIRTIO_F_VERSION_1), .capabilities = 0}));
  const vhost::SharedRegion region{
      .layout = {.guest = {guest_base}, .size = memory_size, .front_end = {user_base}},
      .fd = memory_fd_.get()};
  ASSERT_TRUE(session_->map_memory({&region, 1}));
  start(0);
  start(1);
  for (uint64_t number = 0; number < 50; ++number) carry(number);
  EXPECT_EQ(session_->stop_queue(1), 50U);
  EXPECT_EQ(session_->stop_queue(0), 50U);
}

}  // namespace
}  // namespace ringway::preload
