// vhost-scsi against a target of the same kernel. VIRTIO "SCSI Host Device"; the target is made by
// guest/run.sh.
#include <linux/virtio_config.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "front_end.h"
#include "ringway/base/endian.h"

namespace ringway::kernel_tests {
namespace {

using vhost::bit;

struct Request {
  std::array<uint8_t, 8> lun{1, 1, 0x40, 0, 0, 0, 0, 0};  // target portal group 1, unit 0
  uint8_t tag[8]{};
  uint8_t task_attribute = 0;
  uint8_t priority = 0;
  uint8_t crn = 0;
  std::array<uint8_t, 32> cdb{};
};
static_assert(sizeof(Request) == 51);

struct Response {
  le32 sense_length;
  le32 residual;
  le16 status_qualifier;
  uint8_t status;
  uint8_t response;
  std::array<uint8_t, 96> sense;
};
static_assert(sizeof(Response) == 108);

constexpr uint32_t response_at = 512;
constexpr uint32_t data_at = 4096;
constexpr uint32_t data_bytes = 64 << 10;
constexpr uint8_t good = 0;
constexpr uint8_t check_condition = 2;

class ScsiFrontEnd {
 public:
  ScsiFrontEnd()
      : front_end_(
            [] {
              return [&]() -> Result<std::unique_ptr<kernel::KernelDevice>> {
                auto file = TRY(kernel::VhostFile::open("/dev/vhost-scsi"));
                return kernel::KernelDevice::open(std::move(file),
                                                  TRY(kernel::scsi_endpoint("naa.5001405000000001", 1)));
              }();
            },
            bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_RING_F_EVENT_IDX)) {
    front_end_.share();
    for (uint32_t ring = 0; ring < 3; ++ring) {
      queues_.push_back(std::make_unique<Queue>(front_end_.memory, front_end_.format, 64, ring == 2 ? 4 : 1,
                                                data_at + data_bytes));
      queues_[ring]->start(*front_end_.session, ring, front_end_.base_of_areas());
    }
  }

  // One command; what it read is in data().
  Response run(std::vector<uint8_t> cdb, uint32_t reads, uint32_t writes = 0) {
    Request request;
    std::ranges::copy(cdb, request.cdb.begin());
    const auto slot = queues_[2]->slot(0);
    std::memcpy(slot.data(), &request, sizeof request);
    std::memset(slot.data() + response_at, 0xff, sizeof(Response));
    std::vector<Part> out{{0, sizeof request}};
    std::vector<Part> in{{response_at, sizeof(Response)}};
    if (writes > 0) out.push_back({data_at, writes});
    if (reads > 0) in.push_back({data_at, reads});
    queues_[2]->give(0, out, in);
    if (!queues_[2]->take()) throw std::runtime_error("no answer");
    Response response{};
    std::memcpy(&response, slot.data() + response_at, sizeof response);
    return response;
  }
  [[nodiscard]] std::span<std::byte> data() const { return queues_[2]->slot(0).subspan(data_at); }
  [[nodiscard]] uint32_t big_endian(size_t at) const {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(data()[at + i]);
    return value;
  }

  // A unit tells once that it is new.
  void wait_until_ready() {
    for (int i = 0; i < 5; ++i) {
      if (run({0, 0, 0, 0, 0, 0}, 0).status == good) return;
    }
    throw std::runtime_error("the unit does not become ready");
  }
  uint32_t stop(uint32_t ring) { return must(front_end_.session->stop_queue(ring)); }
  void start_again(uint32_t base) {
    queues_[2]->start(*front_end_.session, 2, front_end_.base_of_areas(), base);
  }

 private:
  FrontEnd front_end_;
  std::vector<std::unique_ptr<Queue>> queues_;
};

std::vector<uint8_t> ten(uint8_t operation, uint32_t block, uint16_t blocks) {
  return {operation,
          0,
          static_cast<uint8_t>(block >> 24),
          static_cast<uint8_t>(block >> 16),
          static_cast<uint8_t>(block >> 8),
          static_cast<uint8_t>(block),
          0,
          static_cast<uint8_t>(blocks >> 8),
          static_cast<uint8_t>(blocks),
          0};
}

std::byte pattern(uint32_t block, uint32_t at) {
  return static_cast<std::byte>((block * 2654435761U ^ at * 40503U) >> 7);
}

TEST(Scsi, TheTargetSaysWhoItIs) {
  ScsiFrontEnd scsi;
  const Response response = scsi.run({0x12, 0, 0, 0, 36, 0}, 36);
  EXPECT_EQ(response.response, 0);
  EXPECT_EQ(response.status, good);
  const std::string_view vendor(reinterpret_cast<const char*>(scsi.data().data()) + 8, 7);
  EXPECT_EQ(vendor, "LIO-ORG");
}

TEST(Scsi, CapacityIsThatOfTheBackstore) {
  ScsiFrontEnd scsi;
  scsi.wait_until_ready();
  ASSERT_EQ(scsi.run({0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8).status, good);
  EXPECT_EQ(scsi.big_endian(4), 512U);
  EXPECT_EQ(scsi.big_endian(0), 4096U * 4096 / 512 - 1);
}

TEST(Scsi, WhatIsWrittenIsReadBack) {
  ScsiFrontEnd scsi;
  scsi.wait_until_ready();
  constexpr uint16_t blocks = data_bytes / 512;
  constexpr uint32_t rounds = 64;
  for (uint32_t round = 0; round < rounds; ++round) {
    for (uint32_t at = 0; at < data_bytes; ++at) scsi.data()[at] = pattern(round, at);
    ASSERT_EQ(scsi.run(ten(0x2a, round * blocks, blocks), 0, data_bytes).status, good) << round;
  }
  for (uint32_t round = 0; round < rounds; ++round) {
    std::ranges::fill(scsi.data(), std::byte{0});
    ASSERT_EQ(scsi.run(ten(0x28, round * blocks, blocks), data_bytes).status, good) << round;
    uint32_t wrong = 0;
    for (uint32_t at = 0; at < data_bytes; ++at) wrong += scsi.data()[at] == pattern(round, at) ? 0 : 1;
    ASSERT_EQ(wrong, 0U) << "bytes of round " << round;
  }
}

TEST(Scsi, AReadBehindTheEndIsTheTargetsError) {
  ScsiFrontEnd scsi;
  scsi.wait_until_ready();
  const Response response = scsi.run(ten(0x28, 4096U * 4096 / 512, 1), 512);
  EXPECT_EQ(response.status, check_condition);
  EXPECT_EQ(response.sense[2] & 0xf, 5);  // illegal request
}

TEST(Scsi, AStoppedRingGoesOnWhereItWas) {
  ScsiFrontEnd scsi;
  scsi.wait_until_ready();
  const uint32_t base = scsi.stop(2);
  EXPECT_GT(base, 0U);
  scsi.start_again(base);
  EXPECT_EQ(scsi.run({0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8).status, good);
}

}  // namespace
}  // namespace ringway::kernel_tests
