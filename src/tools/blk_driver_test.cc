#include "ringway/tools/blk_driver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "ringway/base/endian.h"
#include "ringway/memory/map.h"
#include "ringway/ring/ring.h"

namespace ringway::tools {
namespace {

struct Header {
  le32 type;
  le32 reserved;
  le64 sector;
};

// What a device sees of one request.
struct Seen {
  uint32_t type = 0;
  uint64_t sector = 0;
  std::vector<std::byte> payload;  // after the header
  uint64_t writable = 0;           // bytes, with the status
  ring::Chain chain;
};

// The device's half of the ring, and a device without manners.
class Device {
 public:
  Device(const BlkDriver& driver, const GuestMemory& memory, uint32_t size, ring::Format format) {
    const auto region = memory::Region::open(memory.layout(), std::move(*memory.file()));
    const auto map = *memory::Map::of({*region});
    const auto window = [&](memory::GuestAddress address, uint64_t bytes) {
      memory::Translation failure;
      return *memory::Window::open(memory::View(map), address, bytes, memory::Access::read_write, failure);
    };
    ring::RingConfig config{.size = size, .format = format};
    config.desc = window(driver.addresses().desc, ring::RingConfig::desc_bytes(size, format));
    config.driver = window(driver.addresses().driver, ring::RingConfig::driver_bytes(size, format));
    config.device = window(driver.addresses().device, ring::RingConfig::device_bytes(size, format));
    ring_.emplace(*ring::start(std::move(config), memory::View(map)));
  }

  // The next request, which must be there.
  Seen next() {
    Seen seen;
    seen.chain = pop();
    EXPECT_TRUE(seen.chain);
    ring::Reader reader = seen.chain.reader();
    Header header{};
    EXPECT_TRUE(reader.read(header));
    seen.type = header.type;
    seen.sector = header.sector;
    seen.payload.resize(reader.remaining());
    EXPECT_TRUE(reader.read(seen.payload));
    seen.writable = seen.chain.writer().remaining();
    return seen;
  }
  [[nodiscard]] bool idle() {
    ring::Chain chain = pop();
    if (!chain) return true;
    std::visit([&](auto& ring) { ring.push_back(std::move(chain)); }, *ring_);
    return false;
  }
  // Ends a request: `data` into its buffer, then the status, and what it claims to have written.
  void end(Seen seen, const std::string& data, uint8_t status, uint32_t claimed) {
    ring::Writer writer = seen.chain.writer();
    const ring::ByteSlot slot = writer.take_last_byte();
    EXPECT_TRUE(writer.write(std::as_bytes(std::span(data))));
    if (status != BlkDriver::no_status) slot.write(status);
    std::visit(
        [&](auto& ring) {
          ring.push_used(std::move(seen.chain), claimed);
          (void)ring.publish();
        },
        *ring_);
  }
  void end(Seen seen) {
    const auto all = static_cast<uint32_t>(seen.writable);
    end(std::move(seen), {}, VIRTIO_BLK_S_OK, all);
  }

 private:
  ring::Chain pop() {
    return *std::visit([](auto& ring) { return ring.pop(); }, *ring_);
  }
  std::optional<ring::Ring> ring_;
};

struct Kind {
  const char* name;
  bool packed;
  bool indirect;
};

class BlkDriverTest : public testing::TestWithParam<Kind> {
 protected:
  static constexpr uint32_t ring_size = 16;
  static constexpr uint16_t slots = 8;

  explicit BlkDriverTest(uint32_t piece_bytes = 0) { make(piece_bytes); }

  void make(uint32_t piece_bytes) {
    const ring::Format format{
        .packed = GetParam().packed, .indirect = GetParam().indirect, .event_idx = true};
    memory.emplace(*GuestMemory::make(1 << 20));
    driver.emplace(*BlkDriver::make({.ring_size = ring_size,
                                     .format = format,
                                     .slots = slots,
                                     .data_bytes = 4096,
                                     .piece_bytes = piece_bytes},
                                    *memory));
    device.emplace(*driver, *memory, ring_size, format);
  }
  uint16_t slot() { return *driver->acquire(); }
  BlkDone done() {
    const auto taken = driver->take();
    EXPECT_TRUE(taken && *taken);
    return taken && *taken ? **taken : BlkDone{};
  }
  [[nodiscard]] std::string text(uint16_t of, size_t bytes) const {
    return {reinterpret_cast<const char*>(driver->data(of).data()), bytes};
  }

  std::optional<GuestMemory> memory;
  std::optional<BlkDriver> driver;
  std::optional<Device> device;
};

INSTANTIATE_TEST_SUITE_P(, BlkDriverTest,
                         testing::Values(Kind{"split", false, false}, Kind{"split_indirect", false, true},
                                         Kind{"packed", true, false}, Kind{"packed_indirect", true, true}),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(BlkDriverTest, AReadBringsWhatTheDeviceWrote) {
  const uint16_t own = slot();
  ASSERT_TRUE(driver->read(own, 77, 4096));
  driver->publish();
  Seen seen = device->next();
  EXPECT_EQ(seen.type, uint32_t{VIRTIO_BLK_T_IN});
  EXPECT_EQ(seen.sector, 77U);
  EXPECT_TRUE(seen.payload.empty());
  EXPECT_EQ(seen.writable, 4097U);
  device->end(std::move(seen), std::string(4096, 'r'), VIRTIO_BLK_S_OK, 4097);
  const BlkDone result = done();
  EXPECT_EQ(result.slot, own);
  EXPECT_EQ(result.status, VIRTIO_BLK_S_OK);
  EXPECT_FALSE(result.overlong || result.short_used);
  EXPECT_EQ(text(own, 4096), std::string(4096, 'r'));
}

TEST_P(BlkDriverTest, AWriteShowsItsDataAndOnlyTheStatusIsWritable) {
  const uint16_t own = slot();
  std::ranges::fill(driver->data(own), std::byte{'w'});
  ASSERT_TRUE(driver->write(own, 5, 1024));
  driver->publish();
  Seen seen = device->next();
  EXPECT_EQ(seen.type, uint32_t{VIRTIO_BLK_T_OUT});
  EXPECT_EQ(seen.sector, 5U);
  EXPECT_EQ(seen.payload, std::vector<std::byte>(1024, std::byte{'w'}));
  EXPECT_EQ(seen.writable, 1U);
  device->end(std::move(seen));
  EXPECT_EQ(done().status, VIRTIO_BLK_S_OK);
}

TEST_P(BlkDriverTest, FlushAndGetIdHaveNoPlaceOnTheDisk) {
  ASSERT_TRUE(driver->flush(slot()));
  const uint16_t id = slot();
  ASSERT_TRUE(driver->get_id(id));
  driver->publish();
  Seen flush = device->next();
  EXPECT_EQ(flush.type, uint32_t{VIRTIO_BLK_T_FLUSH});
  EXPECT_EQ(flush.sector, 0U);
  EXPECT_EQ(flush.writable, 1U);
  device->end(std::move(flush));
  Seen get_id = device->next();
  EXPECT_EQ(get_id.type, uint32_t{VIRTIO_BLK_T_GET_ID});
  EXPECT_EQ(get_id.writable, VIRTIO_BLK_ID_BYTES + 1U);
  device->end(std::move(get_id), "serial", VIRTIO_BLK_S_OK, VIRTIO_BLK_ID_BYTES + 1);
  EXPECT_EQ(done().status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(done().slot, id);
  EXPECT_EQ(text(id, 6), "serial");
}

TEST_P(BlkDriverTest, RangesOfDiscardAndWriteZeroesAreLaidOutAsSpecified) {
  const BlkDriver::Range ranges[] = {{.sector = 1, .sectors = 2},
                                     {.sector = 1ULL << 40, .sectors = 8, .unmap = true}};
  ASSERT_TRUE(driver->discard(slot(), std::span(ranges, 1)));
  ASSERT_TRUE(driver->write_zeroes(slot(), ranges));
  ASSERT_TRUE(driver->secure_erase(slot(), ranges));
  driver->publish();
  for (const auto& [type, count] : {std::pair<uint32_t, size_t>{VIRTIO_BLK_T_DISCARD, 1},
                                    {VIRTIO_BLK_T_WRITE_ZEROES, 2},
                                    {VIRTIO_BLK_T_SECURE_ERASE, 2}}) {
    Seen seen = device->next();
    EXPECT_EQ(seen.type, type);
    ASSERT_EQ(seen.payload.size(), 16 * count);
    for (size_t i = 0; i < count; ++i) {
      virtio_blk_discard_write_zeroes wire{};
      std::memcpy(&wire, seen.payload.data() + 16 * i, sizeof wire);
      EXPECT_EQ(wire.sector, ranges[i].sector);
      EXPECT_EQ(wire.num_sectors, ranges[i].sectors);
      EXPECT_EQ(wire.flags, ranges[i].unmap ? 1U : 0U);
    }
    device->end(std::move(seen));
    EXPECT_EQ(done().status, VIRTIO_BLK_S_OK);
  }
}

TEST_P(BlkDriverTest, NothingIsSeenBeforeItIsPublished) {
  ASSERT_TRUE(driver->flush(slot()));
  EXPECT_TRUE(device->idle());
  driver->publish();
  EXPECT_FALSE(device->idle());
  device->end(device->next());
  done();
}

TEST_P(BlkDriverTest, RequestsMayComeBackInAnyOrder) {
  std::vector<uint16_t> own;
  for (uint64_t sector = 0; sector < 5; ++sector) {
    own.push_back(slot());
    ASSERT_TRUE(driver->read(own.back(), sector, 512));
  }
  driver->publish();
  std::vector<Seen> seen;
  for (int i = 0; i < 5; ++i) seen.push_back(device->next());
  for (const size_t i : {3, 0, 4, 2, 1}) {
    EXPECT_EQ(seen[i].sector, i);
    device->end(std::move(seen[i]), std::string(512, static_cast<char>('a' + i)), VIRTIO_BLK_S_OK, 513);
  }
  for (const size_t i : {3, 0, 4, 2, 1}) {
    EXPECT_EQ(done().slot, own[i]);
    EXPECT_EQ(text(own[i], 1), std::string(1, static_cast<char>('a' + i)));
  }
  EXPECT_EQ(driver->in_flight(), 0U);
}

TEST_P(BlkDriverTest, AStatusThatWasNeverWrittenIsSeen) {
  ASSERT_TRUE(driver->read(slot(), 0, 512));
  driver->publish();
  device->end(device->next(), std::string(512, 'x'), BlkDriver::no_status, 513);
  EXPECT_EQ(done().status, BlkDriver::no_status);
}

TEST_P(BlkDriverTest, AnErrorStatusIsPassedOnAndNothingElseIsWrongWithIt) {
  ASSERT_TRUE(driver->read(slot(), 0, 512));
  driver->publish();
  device->end(device->next(), {}, VIRTIO_BLK_S_IOERR, 1);
  const BlkDone result = done();
  EXPECT_EQ(result.status, VIRTIO_BLK_S_IOERR);
  EXPECT_FALSE(result.overlong || result.short_used);
}

TEST_P(BlkDriverTest, LengthsThatCannotBeAreFlagged) {
  for (const auto& [claimed, overlong, short_used] : {std::tuple{514U, true, false},
                                                      {UINT32_MAX, true, false},
                                                      {512U, false, true},
                                                      {0U, false, true},
                                                      {513U, false, false}}) {
    const uint16_t own = slot();
    ASSERT_TRUE(driver->read(own, 0, 512));
    driver->publish();
    device->end(device->next(), std::string(512, 'x'), VIRTIO_BLK_S_OK, claimed);
    const BlkDone result = done();
    EXPECT_EQ(result.overlong, overlong) << claimed;
    EXPECT_EQ(result.short_used, short_used) << claimed;
    driver->release(own);
  }
}

TEST_P(BlkDriverTest, AFullRingLeavesTheSlotToItsOwner) {
  std::vector<uint16_t> started;
  std::optional<uint16_t> refused;
  while (const auto own = driver->acquire()) {
    if (!driver->read(*own, 0, 512)) {
      refused = own;
      break;
    }
    started.push_back(*own);
  }
  driver->publish();
  // 16 entries hold 5 chains of 3; with tables they hold more than there are slots.
  EXPECT_EQ(started.size(), GetParam().indirect ? slots : 5U);
  EXPECT_EQ(refused.has_value(), !GetParam().indirect);
  device->end(device->next());
  const uint16_t own = done().slot;
  EXPECT_TRUE(driver->read(refused.value_or(own), 1, 512));
}

TEST_P(BlkDriverTest, TheRingWrapsManyTimes) {
  for (uint64_t sector = 0; sector < 1000; ++sector) {
    const uint16_t own = slot();
    ASSERT_TRUE(driver->read(own, sector, 512));
    driver->publish();
    Seen seen = device->next();
    ASSERT_EQ(seen.sector, sector);
    device->end(std::move(seen));
    ASSERT_EQ(done().slot, own);
    driver->release(own);
  }
}

TEST_P(BlkDriverTest, DataIsCutIntoPiecesThatTheDeviceAllows) {
  make(1536);
  ASSERT_TRUE(driver->write(slot(), 0, 4096));
  const uint16_t own = slot();
  ASSERT_TRUE(driver->read(own, 0, 4096));
  driver->publish();
  Seen write = device->next();
  EXPECT_EQ(write.payload.size(), 4096U);
  device->end(std::move(write));
  device->end(device->next(), std::string(4096, 'p'), VIRTIO_BLK_S_OK, 4097);
  EXPECT_EQ(done().status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(done().slot, own);
  EXPECT_EQ(text(own, 4096), std::string(4096, 'p'));
}

TEST(BlkDriver, ARingWithoutRoomForOneRequestIsRefused) {
  GuestMemory memory = *GuestMemory::make(1 << 20);
  BlkDriver::Options options{.ring_size = 2, .format = {}, .slots = 1, .data_bytes = 4096, .piece_bytes = 0};
  EXPECT_FALSE(BlkDriver::make(options, memory));
  options.format.indirect = true;
  EXPECT_TRUE(BlkDriver::make(options, memory));
}

TEST(BlkDriver, MemoryBytesAreWhatIsNeeded) {
  for (const uint32_t ring_size : {4U, 128U, 1024U}) {
    const BlkDriver::Options options{.ring_size = ring_size,
                                     .format = {.indirect = true},
                                     .slots = 3,
                                     .data_bytes = 6144,
                                     .piece_bytes = 512};
    GuestMemory enough = *GuestMemory::make(options.memory_bytes());
    EXPECT_TRUE(BlkDriver::make(options, enough));
    GuestMemory too_little = *GuestMemory::make(options.memory_bytes() - 4096);
    EXPECT_FALSE(BlkDriver::make(options, too_little));
  }
}

}  // namespace
}  // namespace ringway::tools
