// vhost-vdpa served: the kernel's rules, and a disk behind them, used by nothing but ioctls and write().
#include "ringway/tools/vdpa_device.h"

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <cstring>
#include <random>
#include <thread>

#include "ringway/base/endian.h"
#include "ringway/base/mapping.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/blk/blk.h"
#include "ringway/device/net/net.h"
#include "ringway/device/port/null.h"
#include "ringway/kernel/caller_test.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using kernel::IoctlServer;
using vhost::bit;

constexpr uint64_t disk_bytes = 1 << 20;
constexpr uint64_t modern = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM);

class ServedVdpa : public testing::Test {
 protected:
  static constexpr uint64_t iova = 0x10'0000;
  static constexpr uint32_t ring_size = 16;
  static constexpr uint64_t request_at = 16 << 10;  // in memory_, behind the ring
  static constexpr uint64_t data_at = 20 << 10;
  static constexpr uint32_t data_bytes = 4096;
  static constexpr uint64_t status_at = 32 << 10;

  static uint64_t address(const void* at) { return reinterpret_cast<uintptr_t>(at); }
  template <class T>
  long call(unsigned long request, T&& argument) {
    return server_->ioctl(caller_, request, address(&argument));
  }
  long call(unsigned long request) { return server_->ioctl(caller_, request, 0); }
  template <class T>
  T get(unsigned long request) {
    T value{};
    EXPECT_EQ(call(request, value), 0);
    return value;
  }
  long set_status(unsigned status) { return call(VHOST_VDPA_SET_STATUS, static_cast<uint8_t>(status)); }
  uint8_t status() { return get<uint8_t>(VHOST_VDPA_GET_STATUS); }
  long enable(uint32_t ring, unsigned on) {
    return call(VHOST_VDPA_SET_VRING_ENABLE, vhost_vring_state{.index = ring, .num = on});
  }
  long message(uint8_t type, uint64_t at, uint64_t size, const std::byte* to = nullptr,
               uint8_t permission = VHOST_ACCESS_RW) {
    vhost_msg_v2 one{};
    one.type = VHOST_IOTLB_MSG_V2;
    one.iotlb = {.iova = at, .size = size, .uaddr = address(to), .perm = permission, .type = type};
    const auto written = server_->write(caller_, std::as_bytes(std::span(&one, 1)));
    return written ? 0 : -written.error().os_error;
  }
  long map() { return message(VHOST_IOTLB_UPDATE, iova, memory_.size(), memory_.data()); }
  long unmap() { return message(VHOST_IOTLB_INVALIDATE, iova, memory_.size()); }

  void agree(uint64_t features = modern) {
    ASSERT_EQ(call(VHOST_SET_OWNER), 0);
    ASSERT_EQ(set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER), 0);
    ASSERT_EQ(call(VHOST_SET_FEATURES, features), 0);
    ASSERT_EQ(set_status(agreed), 0);
    packed_ = (features & bit(VIRTIO_F_RING_PACKED)) != 0;
  }
  void describe(uint32_t base = 0) {
    const ring::DriverConfig config{
        .size = ring_size,
        .format = ring::Format::of(packed_ ? bit(VIRTIO_F_RING_PACKED) : 0, false),
        .area = memory_.data(),
        .address = {iova}};
    if (!driver_) driver_.emplace(*ring::make_driver(config));
    const ring::DriverLayout layout = config.layout();
    ASSERT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = ring_size}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_BASE, vhost_vring_state{.index = 0, .num = base}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_ADDR, vhost_vring_addr{.index = 0,
                                                          .flags = 0,
                                                          .desc_user_addr = iova + layout.desc,
                                                          .used_user_addr = iova + layout.device,
                                                          .avail_user_addr = iova + layout.driver,
                                                          .log_guest_addr = 0}),
              0);
    ASSERT_EQ(call(VHOST_SET_VRING_KICK, vhost_vring_file{.index = 0, .fd = kick_.get()}), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_CALL, vhost_vring_file{.index = 0, .fd = call_.get()}), 0);
  }
  // All that a program does until the disk is there.
  void start(uint64_t features = modern) {
    agree(features);
    ASSERT_EQ(map(), 0);
    describe(packed_ ? 0x80008000 : 0);
    ASSERT_EQ(enable(0, 1), 0);
    ASSERT_EQ(set_status(running), 0);
  }

  void submit(uint32_t type, uint64_t sector) {
    const struct {
      le32 type;
      le32 reserved;
      le64 sector;
    } request{.type = type, .reserved = 0, .sector = sector};
    std::memcpy(memory_.data() + request_at, &request, sizeof request);
    memory_.data()[status_at] = std::byte{0xff};
    const ring::Buffer head{.address = {iova + request_at}, .length = sizeof request};
    const ring::Buffer data{.address = {iova + data_at}, .length = data_bytes};
    const ring::Buffer end{.address = {iova + status_at}, .length = 1};
    const std::array<ring::Buffer, 2> out{head, data};
    const std::array<ring::Buffer, 2> in{data, end};
    const ring::Buffers chain = type == VIRTIO_BLK_T_OUT
                                    ? ring::Buffers{.readable = out, .writable = {&end, 1}}
                                    : ring::Buffers{.readable = {&head, 1}, .writable = in};
    ASSERT_TRUE(std::visit([&](auto& one) { return one.add(chain); }, *driver_));
    if (std::visit([](auto& one) { return one.publish(); }, *driver_)) ::eventfd_write(kick_.get(), 1);
  }
  bool is_used(std::chrono::milliseconds wait = std::chrono::seconds(5)) {
    const auto end = std::chrono::steady_clock::now() + wait;
    do {
      const auto used = std::visit([](auto& one) { return one.take_used(); }, *driver_);
      EXPECT_TRUE(used);
      if (used && *used) return true;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }
  // The disk takes a pattern and gives it back.
  void keeps(uint8_t value) {
    std::memset(memory_.data() + data_at, value, data_bytes);
    submit(VIRTIO_BLK_T_OUT, 8);
    ASSERT_TRUE(is_used());
    EXPECT_EQ(memory_.data()[status_at], std::byte{VIRTIO_BLK_S_OK});
    std::memset(memory_.data() + data_at, 0, data_bytes);
    submit(VIRTIO_BLK_T_IN, 8);
    ASSERT_TRUE(is_used());
    EXPECT_EQ(memory_.data()[data_at], std::byte{value});
    EXPECT_EQ(memory_.data()[data_at + data_bytes - 1], std::byte{value});
  }
  std::unique_ptr<IoctlServer> open() {
    auto opened = IoctlServer::open({.family = kernel::Family::vdpa}, [this] { return device_.open(); });
    return opened ? *std::move(opened) : nullptr;
  }

  static constexpr uint8_t agreed =
      VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
  static constexpr uint8_t running = agreed | VIRTIO_CONFIG_S_DRIVER_OK;
  Mapping memory_ = *Mapping::anonymous(64 << 10);
  UniqueFd kick_ = *make_eventfd();
  UniqueFd call_ = *make_eventfd();
  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = 1, .use_io_uring = false});
  VdpaDevice device_{std::make_unique<blk::Blk>(backing::open_memory(disk_bytes).value(),
                                                blk::Blk::Options{.queues = 2, .serial = "vdpa"}),
                     *workers_};
  kernel::test::TestCaller caller_;
  std::unique_ptr<IoctlServer> server_ = open();
  bool packed_ = false;
  std::optional<ring::Driver> driver_;
};

TEST_F(ServedVdpa, it_says_what_it_is_to_anybody) {
  EXPECT_EQ(get<uint32_t>(VHOST_VDPA_GET_DEVICE_ID), VIRTIO_ID_BLOCK);
  EXPECT_EQ(get<uint32_t>(VHOST_VDPA_GET_VQS_COUNT), 2U);
  EXPECT_GE(get<uint16_t>(VHOST_VDPA_GET_VRING_NUM), 256U);
  EXPECT_GE(get<uint32_t>(VHOST_VDPA_GET_CONFIG_SIZE), 60U);
  EXPECT_EQ(get<uint32_t>(VHOST_VDPA_GET_GROUP_NUM), 1U);
  EXPECT_EQ(get<uint32_t>(VHOST_VDPA_GET_AS_NUM), 1U);
  EXPECT_EQ(get<vhost_vdpa_iova_range>(VHOST_VDPA_GET_IOVA_RANGE).first, 0U);
  EXPECT_EQ(get<uint64_t>(VHOST_GET_FEATURES) & modern, modern);
  EXPECT_EQ(get<uint64_t>(VHOST_GET_FEATURES) & bit(VHOST_F_LOG_ALL), 0U);
  EXPECT_EQ(status(), 0);
}

TEST_F(ServedVdpa, who_has_it_has_it_alone) {
  EXPECT_EQ(open(), nullptr);
  EXPECT_EQ(device_.open().error().os_error, EBUSY);
  server_.reset();
  server_ = open();
  ASSERT_NE(server_, nullptr);
  start();
  keeps(1);
}

TEST_F(ServedVdpa, a_disk_keeps_what_is_written) {
  start();
  for (uint8_t value = 1; value < 20; ++value) keeps(value);
  pollfd entry{.fd = call_.get(), .events = POLLIN};
  EXPECT_EQ(::poll(&entry, 1, 1000), 1);
}

TEST_F(ServedVdpa, packed_rings_are_served) {
  ASSERT_NE(get<uint64_t>(VHOST_GET_FEATURES) & bit(VIRTIO_F_RING_PACKED), 0U);
  start(modern | bit(VIRTIO_F_RING_PACKED));
  for (uint8_t value = 1; value < 30; ++value) keeps(value);
}

TEST_F(ServedVdpa, a_ring_runs_while_it_is_enabled_and_the_driver_is_ready) {
  agree();
  ASSERT_EQ(map(), 0);
  describe();
  submit(VIRTIO_BLK_T_IN, 0);
  ASSERT_EQ(set_status(running), 0);
  EXPECT_FALSE(is_used(std::chrono::milliseconds(30)));
  ASSERT_EQ(enable(0, 1), 0);
  EXPECT_TRUE(is_used());
  ASSERT_EQ(enable(0, 0), 0);
  submit(VIRTIO_BLK_T_IN, 0);
  EXPECT_FALSE(is_used(std::chrono::milliseconds(30)));
  ASSERT_EQ(enable(0, 1), 0);
  EXPECT_TRUE(is_used());
}

TEST_F(ServedVdpa, a_suspended_device_rests_says_where_it_is_and_goes_on) {
  start();
  keeps(1);
  ASSERT_EQ(call(VHOST_VDPA_SUSPEND), 0);
  submit(VIRTIO_BLK_T_IN, 0);
  EXPECT_FALSE(is_used(std::chrono::milliseconds(30)));
  vhost_vring_state base{.index = 0, .num = 0xdead};
  EXPECT_EQ(call(VHOST_GET_VRING_BASE, base), 0);
  EXPECT_EQ(base.num, 2U);
  ASSERT_EQ(call(VHOST_VDPA_RESUME), 0);
  EXPECT_TRUE(is_used());
}

TEST_F(ServedVdpa, a_reset_ends_everything_but_what_is_mapped) {
  start();
  keeps(1);
  ASSERT_EQ(set_status(0), 0);
  EXPECT_EQ(status(), 0);
  submit(VIRTIO_BLK_T_IN, 0);
  EXPECT_FALSE(is_used(std::chrono::milliseconds(30)));
  ASSERT_EQ(set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER), 0);
  ASSERT_EQ(call(VHOST_SET_FEATURES, modern), 0);
  ASSERT_EQ(set_status(agreed), 0);
  describe(2);
  ASSERT_EQ(enable(0, 1), 0);
  ASSERT_EQ(set_status(running), 0);
  EXPECT_TRUE(is_used());
  keeps(3);
}

TEST_F(ServedVdpa, bits_of_the_status_go_by_a_reset_only) {
  agree();
  EXPECT_EQ(set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE), -EINVAL);
  EXPECT_EQ(status(), agreed);
}

TEST_F(ServedVdpa, a_ring_that_cannot_start_leaves_the_status_as_it_was) {
  agree();
  describe();  // and nothing is mapped
  ASSERT_EQ(enable(0, 1), 0);
  EXPECT_LT(set_status(running), 0);
  EXPECT_EQ(status(), agreed);
  ASSERT_EQ(map(), 0);
  EXPECT_EQ(set_status(running), 0);
  keeps(1);
}

TEST_F(ServedVdpa, features_are_agreed_on_once) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(call(VHOST_SET_FEATURES, modern | bit(63)), -EINVAL);
  EXPECT_EQ(call(VHOST_SET_FEATURES, modern), 0);
  EXPECT_EQ(call(VHOST_SET_FEATURES, uint64_t{0}), 0);
  ASSERT_EQ(set_status(agreed), 0);
  EXPECT_EQ(call(VHOST_SET_FEATURES, modern), -EBUSY);
  const auto backend = get<uint64_t>(VHOST_GET_BACKEND_FEATURES);
  EXPECT_NE(backend & bit(VHOST_BACKEND_F_IOTLB_MSG_V2), 0U);
  EXPECT_EQ(call(VHOST_SET_BACKEND_FEATURES, backend), 0);
  EXPECT_EQ(call(VHOST_SET_BACKEND_FEATURES, ~backend), -EOPNOTSUPP);
}

struct ConfigRange {
  uint32_t offset = 0;
  uint32_t size = 0;
  std::array<std::byte, 512> bytes{};
};

TEST_F(ServedVdpa, the_configuration_is_read_and_written_where_it_may_be) {
  ConfigRange capacity{.offset = 0, .size = 8};
  ASSERT_EQ(call(VHOST_VDPA_GET_CONFIG, capacity), 0);
  uint64_t sectors = 0;
  std::memcpy(&sectors, capacity.bytes.data(), sizeof sectors);
  EXPECT_EQ(sectors, disk_bytes / 512);
  EXPECT_EQ(call(VHOST_VDPA_SET_CONFIG, capacity), -EINVAL) << "nobody may write that";
  agree(modern | bit(VIRTIO_BLK_F_CONFIG_WCE));
  EXPECT_EQ(call(VHOST_VDPA_SET_CONFIG, ConfigRange{.offset = 32, .size = 1}), 0);
  const uint32_t end = get<uint32_t>(VHOST_VDPA_GET_CONFIG_SIZE);
  for (const auto& [offset, size] : {std::pair(end, 1U), {0U, end + 1}, {0U, 0U}, {~0U, 1U}, {1U, ~0U}}) {
    EXPECT_EQ(call(VHOST_VDPA_GET_CONFIG, ConfigRange{.offset = offset, .size = size}), -EINVAL) << offset;
    EXPECT_EQ(call(VHOST_VDPA_SET_CONFIG, ConfigRange{.offset = offset, .size = size}), -EINVAL) << offset;
  }
}

TEST_F(ServedVdpa, what_is_mapped_twice_or_outside_is_refused) {
  ASSERT_EQ(map(), -EFAULT) << "nobody owns the device";
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  ASSERT_EQ(map(), 0);
  EXPECT_EQ(map(), -EFAULT);
  EXPECT_EQ(message(VHOST_IOTLB_UPDATE, iova + 4096, 4096, memory_.data()), -EFAULT);
  EXPECT_EQ(message(VHOST_IOTLB_UPDATE, 0, 0, memory_.data()), -EINVAL);
  EXPECT_EQ(message(VHOST_IOTLB_UPDATE, ~uint64_t{4095}, 4096, memory_.data()), -EFAULT);
  EXPECT_EQ(message(VHOST_IOTLB_UPDATE, 0, ~uint64_t{0}, memory_.data()), -EFAULT);
  EXPECT_EQ(message(VHOST_IOTLB_UPDATE, 0, 4096, memory_.data(), VHOST_ACCESS_RO), -EFAULT);
  EXPECT_EQ(message(VHOST_IOTLB_MISS, 0, 4096, memory_.data()), -EFAULT);
  EXPECT_EQ(message(VHOST_IOTLB_BATCH_BEGIN, 0, 0), 0);
  EXPECT_EQ(message(VHOST_IOTLB_BATCH_END, 0, 0), 0);
  EXPECT_EQ(unmap(), 0);
  EXPECT_EQ(unmap(), 0) << "there is nothing";
  EXPECT_EQ(map(), 0);
  EXPECT_EQ(message(VHOST_IOTLB_INVALIDATE, 0, ~uint64_t{0}), 0);
  EXPECT_EQ(map(), 0);
  caller_.process_ = 1;
  EXPECT_EQ(unmap(), -EFAULT);
}

TEST_F(ServedVdpa, what_is_unmapped_under_a_ring_stops_it) {
  start();
  keeps(1);
  ASSERT_EQ(unmap(), 0);
  submit(VIRTIO_BLK_T_IN, 0);
  EXPECT_FALSE(is_used(std::chrono::milliseconds(30)));
  EXPECT_EQ(set_status(0), 0);
}

TEST_F(ServedVdpa, ioctls_of_others_and_of_rings_that_are_not_there_are_refused) {
  EXPECT_EQ(call(VHOST_SET_LOG_BASE, uint64_t{0}), -ENOTTY);
  EXPECT_EQ(call(VHOST_SET_LOG_FD, -1), -ENOTTY);
  EXPECT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = 8}), -EPERM);
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(call(VHOST_SET_OWNER), -EBUSY);
  EXPECT_EQ(call(VHOST_NET_SET_BACKEND, vhost_vring_file{.index = 0, .fd = -1}), -ENOTTY);
  EXPECT_EQ(call(VHOST_RESET_OWNER), -EFAULT) << "taken for an ioctl of a ring";
  EXPECT_EQ(enable(2, 1), -ENOBUFS);
  EXPECT_EQ(call(VHOST_VDPA_GET_VRING_GROUP, vhost_vring_state{.index = 1, .num = 7}), 0);
  EXPECT_EQ(call(VHOST_VDPA_GET_VRING_DESC_GROUP, vhost_vring_state{.index = 1, .num = 0}), -EOPNOTSUPP);
  vhost_vring_state size{.index = 1, .num = 7};
  EXPECT_EQ(call(VHOST_VDPA_GET_VRING_SIZE, size), 0);
  EXPECT_EQ(size.num, get<uint16_t>(VHOST_VDPA_GET_VRING_NUM));
  EXPECT_EQ(call(VHOST_VDPA_SET_GROUP_ASID, vhost_vring_state{.index = 0, .num = 1}), -EINVAL);
  EXPECT_EQ(call(VHOST_VDPA_SET_GROUP_ASID, vhost_vring_state{.index = 1, .num = 0}), -EINVAL);
  EXPECT_EQ(call(VHOST_VDPA_SET_GROUP_ASID, vhost_vring_state{.index = 0, .num = 0}), 0);
  EXPECT_EQ(call(VHOST_VDPA_SET_CONFIG_CALL, 9999), -EBADF);
  EXPECT_EQ(call(VHOST_VDPA_SET_CONFIG_CALL, 1), -EINVAL);
  EXPECT_EQ(call(VHOST_VDPA_SET_CONFIG_CALL, -1), 0);
  std::array<std::byte, 128> room{};
  EXPECT_EQ(server_->read(room).error().os_error, EINVAL);
}

TEST_F(ServedVdpa, bad_pointers_are_noticed) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  for (const kernel::IoctlInfo& info : kernel::ioctl_table()) {
    const bool is_log = info.request == VHOST_SET_LOG_BASE || info.request == VHOST_SET_LOG_FD;
    if (info.argument == kernel::Argument::nothing || is_log) continue;
    for (const uint64_t bad : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, uint64_t{1} << 62U}) {
      EXPECT_EQ(server_->ioctl(caller_, info.request, bad), -EFAULT) << info.name << ' ' << bad;
    }
  }
}

// Anything at any time, by numbers that repeat: what comes out is 0 or an errno, and the process lives.
TEST_F(ServedVdpa, random_calls_are_survived) {
  std::mt19937_64 random(20260102);  // NOLINT(cert-msc51-cpp): the same every time
  const auto pick = [&](const auto& from) { return from[random() % std::size(from)]; };
  start();
  unsigned succeeded = 0;
  const std::array<uint64_t, 12> numbers{0,    1,      2,    3,           16,    256,
                                         4096, modern, iova, iova + 4096, ~0ULL, address(memory_.data())};
  const std::array<int, 4> files{-1, kick_.get(), call_.get(), 9999};
  for (int i = 0; i < 20'000; ++i) {
    std::array<uint64_t, 80> argument{};
    for (uint64_t& word : argument) word = pick(numbers);
    const kernel::IoctlInfo info = pick(kernel::ioctl_table());
    if (info.argument == kernel::Argument::vring_file)
      argument[0] = static_cast<uint64_t>(pick(files)) << 32U | random() % 3;
    if (info.argument == kernel::Argument::file) argument[0] = static_cast<uint32_t>(pick(files));
    if (info.argument == kernel::Argument::vring_state) argument[0] = pick(numbers) << 32U | random() % 3;
    if (info.request == VHOST_VDPA_SET_STATUS)
      argument[0] = pick(std::array<uint64_t, 4>{0, 3, agreed, running});
    const long result = call(info.request, argument);
    ASSERT_LE(result, 0);
    ASSERT_GT(result, -4096);
    succeeded += result == 0 ? 1 : 0;
    const auto type = static_cast<uint8_t>(random() % 8);
    const long written = message(type, pick(numbers), pick(numbers), memory_.data());
    ASSERT_LE(written, 0);
  }
  EXPECT_GT(succeeded, 1000U);
}

// A network device, whose configuration changes when it is given another MTU.
TEST_F(ServedVdpa, a_change_of_the_configuration_is_signalled) {
  auto model = std::make_unique<net::Net>(port::open_null({}), net::Net::Options{.pairs = 1});
  net::Net& device = *model;
  VdpaDevice vdpa(std::move(model), *workers_);
  server_ = *IoctlServer::open({.family = kernel::Family::vdpa}, [&] { return vdpa.open(); });
  EXPECT_EQ(get<uint32_t>(VHOST_VDPA_GET_DEVICE_ID), VIRTIO_ID_NET);
  EXPECT_EQ(get<uint32_t>(VHOST_VDPA_GET_VQS_COUNT), 3U);
  start();
  const UniqueFd told = *make_eventfd();
  ASSERT_EQ(call(VHOST_VDPA_SET_CONFIG_CALL, told.get()), 0);
  ASSERT_TRUE(device.set_mtu(1400));
  pollfd entry{.fd = told.get(), .events = POLLIN};
  EXPECT_EQ(::poll(&entry, 1, 5000), 1);
  server_.reset();
}

}  // namespace
}  // namespace ringway::tools
