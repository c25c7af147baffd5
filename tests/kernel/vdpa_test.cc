// vhost-vdpa on the simulators of the kernel: a disk of memory, and a network device that sends back what it
// is sent. VIRTIO "Block Device", "Network Device"; guest/run.sh makes them.
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <algorithm>

#include "front_end.h"
#include "ringway/base/endian.h"
#include "ringway/kernel/tuning.h"

namespace ringway::kernel_tests {
namespace {

using vhost::bit;

constexpr const char* blk_file = "/dev/vhost-vdpa-0";
constexpr const char* net_file = "/dev/vhost-vdpa-1";

Result<std::unique_ptr<kernel::KernelDevice>> open_file(const char* path) {
  return kernel::KernelDevice::open(TRY(kernel::VhostFile::open(path)), kernel::vdpa_endpoint());
}

struct Request {
  le32 type;
  le32 reserved;
  le64 sector;
};

constexpr uint32_t data_at = 512;
constexpr uint32_t data_bytes = 32 << 10;
constexpr uint32_t status_at = data_at + data_bytes;

class BlkFrontEnd {
 public:
  BlkFrontEnd()
      : front_end_([] { return open_file(blk_file); }, bit(VIRTIO_F_VERSION_1)),
        queue_(front_end_.memory, front_end_.format, 128, 1, 64 << 10) {
    front_end_.share();
    start(0);
  }
  void start(uint32_t base) { queue_.start(session(), 0, front_end_.base_of_areas(), base); }
  uint32_t stop() { return must(session().stop_queue(0)); }

  // The status of one request of all data().
  std::byte run(uint32_t type, uint64_t sector) {
    const Request request{.type = type, .reserved = 0, .sector = sector};
    const auto slot = queue_.slot(0);
    std::memcpy(slot.data(), &request, sizeof request);
    slot[status_at] = std::byte{0xff};
    const Part head{0, sizeof request};
    const Part all{data_at, data_bytes};
    const Part status{status_at, 1};
    if (type == VIRTIO_BLK_T_OUT) {
      queue_.give(0, {head, all}, {status});
    } else {
      queue_.give(0, {head}, {all, status});
    }
    if (!queue_.take()) throw std::runtime_error("no answer");
    return slot[status_at];
  }
  [[nodiscard]] std::span<std::byte> data() const { return queue_.slot(0).subspan(data_at, data_bytes); }
  vhost::Session& session() { return *front_end_.session; }
  FrontEnd& front_end() { return front_end_; }

 private:
  FrontEnd front_end_;
  Queue queue_;
};

std::byte pattern(uint32_t round, uint32_t at) {
  return static_cast<std::byte>((round * 2654435761U ^ at * 40503U) >> 7);
}

void write_and_read(BlkFrontEnd& blk, uint32_t rounds) {
  constexpr uint32_t sectors = data_bytes / 512;
  for (uint32_t round = 0; round < rounds; ++round) {
    for (uint32_t at = 0; at < data_bytes; ++at) blk.data()[at] = pattern(round, at);
    ASSERT_EQ(blk.run(VIRTIO_BLK_T_OUT, uint64_t{round} * sectors), std::byte{VIRTIO_BLK_S_OK});
  }
  for (uint32_t round = 0; round < rounds; ++round) {
    std::ranges::fill(blk.data(), std::byte{0});
    ASSERT_EQ(blk.run(VIRTIO_BLK_T_IN, uint64_t{round} * sectors), std::byte{VIRTIO_BLK_S_OK});
    uint32_t wrong = 0;
    for (uint32_t at = 0; at < data_bytes; ++at) wrong += blk.data()[at] == pattern(round, at) ? 0 : 1;
    ASSERT_EQ(wrong, 0U) << "bytes of round " << round;
  }
}

TEST(VdpaBlk, WhatIsWrittenIsReadBack) {
  BlkFrontEnd blk;
  write_and_read(blk, 200);
}

TEST(VdpaBlk, TheConfigurationHasTheCapacity) {
  BlkFrontEnd blk;
  const auto bytes = must(blk.session().read_config(0, 8));
  le64 sectors;
  std::memcpy(static_cast<void*>(&sectors), bytes.data(), sizeof sectors);
  EXPECT_GT(sectors, 0U);
  EXPECT_EQ(blk.run(VIRTIO_BLK_T_IN, sectors), std::byte{VIRTIO_BLK_S_IOERR});
}

TEST(VdpaBlk, AStoppedDeviceGoesOnWhereItWas) {
  BlkFrontEnd blk;
  for (int i = 0; i < 3; ++i) {
    write_and_read(blk, 10);
    const uint32_t base = blk.stop();
    EXPECT_EQ(base, 20U * (i + 1));
    blk.start(base);
  }
  write_and_read(blk, 10);
}

TEST(VdpaBlk, MemoryMayBeSharedAnewUnderTheRing) {
  BlkFrontEnd blk;
  for (int i = 0; i < 3; ++i) {
    write_and_read(blk, 10);
    vhost::SetMemTable table;
    table.regions.push_back(
        {.layout = blk.front_end().memory.layout(), .fd = must(blk.front_end().memory.file())});
    must(vhost::call(blk.front_end().device(), std::move(table)));
  }
  write_and_read(blk, 10);
}

TEST(VdpaBlk, TheStatusIsThatOfARunningDriver) {
  BlkFrontEnd blk;
  EXPECT_EQ(must(blk.session().status()), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                                              VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
  must(blk.session().set_status(0));
  EXPECT_EQ(must(blk.session().status()), 0);
}

TEST(VdpaFile, TheKernelSaysWhatTheDeviceIs) {
  const auto blk = must(open_file(blk_file));
  EXPECT_EQ(must(kernel::vdpa_device_id(blk->file())), VIRTIO_ID_BLOCK);
  EXPECT_EQ(must(kernel::vdpa_groups(blk->file())), 1U);
  EXPECT_EQ(must(kernel::vdpa_address_spaces(blk->file())), 1U);
  EXPECT_EQ(must(kernel::vdpa_group_of(blk->file(), 0)), 0U);
  EXPECT_TRUE(kernel::vdpa_set_address_space(blk->file(), 0, 0));
  const auto net = must(open_file(net_file));
  EXPECT_EQ(must(kernel::vdpa_device_id(net->file())), VIRTIO_ID_NET);
  EXPECT_GE(net->shape().rings, 2U);
}

TEST(VdpaNet, FramesComeBack) {
  FrontEnd front_end([] { return open_file(net_file); }, bit(VIRTIO_F_VERSION_1));
  Queue receive(front_end.memory, front_end.format, 128, 64, 2048);
  Queue transmit(front_end.memory, front_end.format, 128, 1, 2048);
  for (uint16_t slot = 0; slot < 64; ++slot) receive.give(slot, {}, {{0, 2048}});
  front_end.share();
  receive.start(*front_end.session, 0, front_end.base_of_areas());
  transmit.start(*front_end.session, 1, front_end.base_of_areas());
  for (uint32_t n = 0; n < 1000; ++n) {
    const uint32_t bytes = 12 + 60 + n % 1400;
    const auto frame = transmit.slot(0).first(bytes);
    std::ranges::fill(frame, std::byte{0});
    for (uint32_t at = 12; at < bytes; ++at) frame[at] = pattern(n, at);
    std::ranges::fill(frame.subspan(12, 6), std::byte{0xff});  // to everybody
    transmit.give(0, {{0, bytes}}, {});
    ASSERT_TRUE(transmit.take());
    const auto back = receive.take();
    ASSERT_TRUE(back) << n;
    ASSERT_EQ(back->written, bytes);
    ASSERT_TRUE(std::ranges::equal(receive.slot(back->slot).subspan(12, bytes - 12), frame.subspan(12))) << n;
    receive.give(back->slot, {}, {{0, 2048}});
  }
}

}  // namespace
}  // namespace ringway::kernel_tests
