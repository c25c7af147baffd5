// Each byte that a driver or a device shares with us is read once, into a copy, and everything is decided on
// the copy: what is read twice may have changed in between. Counted exactly, on the real code of rings and
// blk requests.
//
// Allowed to be read again: the index (packed: the flags) that says whether there is something, at each look;
// and event suppression, at each publish.

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "fuzz/read_counter.h"
#include "ringway/device/blk/request.h"
#include "ringway/ring/rig_test.h"

namespace ringway {
namespace {

using fuzz::ReadCounter;
using memory::load;
using ring::Chain;
using ring::Format;
using ring::test::Guest;
using ring::test::Rig;

constexpr uint64_t guest_bytes = 128 * 1024;

// ---- the counter itself: a deliberate second read must show
// ----------------------------------------------------------

template <class T>
T read_twice(const std::byte* at) {
  return static_cast<T>(load<T>(at) + load<T>(at));
}

class ReadCounterTest : public testing::Test {
 protected:
  ReadCounterTest() { ReadCounter::watch(bytes_, sizeof bytes_); }
  ~ReadCounterTest() override { ReadCounter::stop(); }
  // "2200": reads of the first bytes.
  static std::string counts(size_t bytes) {
    std::string text;
    for (const uint8_t count : ReadCounter::counts().first(bytes)) text += std::to_string(count);
    return text;
  }
  alignas(16) std::byte bytes_[32] = {};
};

TEST_F(ReadCounterTest, a_second_load_shows_in_every_size) {
  EXPECT_EQ(read_twice<uint8_t>(bytes_), 0);
  EXPECT_EQ(read_twice<uint16_t>(bytes_ + 2), 0);
  EXPECT_EQ(read_twice<uint32_t>(bytes_ + 4), 0U);
  EXPECT_EQ(read_twice<uint64_t>(bytes_ + 8), 0U);
  EXPECT_EQ(counts(18), "202222222222222200");
}

TEST_F(ReadCounterTest, a_copy_is_a_read_whatever_its_size) {
  std::byte copy[32];
  memory::copy_out(copy, bytes_, 1);
  memory::copy_out(copy, bytes_, 3);
  volatile size_t length = 5;
  memory::copy_out(copy, bytes_, length);
  EXPECT_EQ(counts(8), "32211000");
}

TEST_F(ReadCounterTest, a_copy_and_then_a_look_at_the_original_is_two_reads) {
  ring::Descriptor descriptor = ring::ByteOrder().load_descriptor(bytes_);
  if (descriptor.length == load<uint32_t>(bytes_ + 8)) descriptor.length = 0;
  EXPECT_EQ(counts(16), "1111111122221111");
}

TEST_F(ReadCounterTest, a_store_is_not_a_read) {
  memory::store<uint64_t>(bytes_, 1);
  memory::copy_in(bytes_ + 8, "abcdefgh", 8);
  EXPECT_EQ(counts(16), "0000000000000000");
}

// ---- the device half
// --------------------------------------------------------------------------------------------------

struct Case {
  const char* name;
  Format format;
  uint32_t size;
  uint32_t table_entries;
  bool iotlb = false;
};

std::ostream& operator<<(std::ostream& out, const Case& one) { return out << one.name; }

constexpr Case cases[] = {
    {"split", {}, 16, 0},
    {"split_indirect", {.indirect = true}, 16, 12},
    {"split_event_idx", {.event_idx = true}, 16, 0},
    {"split_in_order", {.in_order = true}, 16, 0},
    {"split_big_endian", {.indirect = true, .big_endian = true}, 16, 4},
    {"split_one_entry", {}, 1, 0},
    {"split_iotlb", {.indirect = true}, 16, 12, true},
    {"packed", {.packed = true}, 16, 0},
    {"packed_odd_size", {.packed = true}, 13, 0},
    {"packed_indirect", {.packed = true, .indirect = true}, 16, 12},
    {"packed_event_idx", {.packed = true, .event_idx = true}, 16, 0},
    {"packed_in_order", {.packed = true, .in_order = true}, 16, 0},
    {"packed_one_entry", {.packed = true}, 1, 0},
    {"packed_iotlb", {.packed = true, .indirect = true}, 16, 12, true},
};

class ReadOnce : public testing::TestWithParam<Case> {
 protected:
  ReadOnce()
      : guest_(guest_bytes),
        data_(guest_.allocate(64 * 1024, 4096)),
        rig_(guest_, {.size = GetParam().size,
                      .format = GetParam().format,
                      .table_entries = GetParam().table_entries}) {
    if (GetParam().iotlb) rig_.device.set_view(memory::View(guest_.map(), identity()));
  }

  // Page by page, so that translation takes its slow way.
  static std::shared_ptr<const memory::IotlbTable> identity() {
    auto table = memory::IotlbTable::empty();
    for (uint64_t at = 0; at < guest_bytes; at += 0x1000) {
      const memory::IotlbEntry entry{
          .iova = {Guest::base + at}, .size = 0x1000, .front_end = {Guest::front_end + at}};
      table = table->with(entry).value();
    }
    return table;
  }

  // Chains of random shapes, as many as fit. Returns how many descriptors they are made of, in the ring and
  // in tables.
  uint64_t add_chains() {
    uint64_t descriptors = 0;
    std::vector<ring::Buffer> readable;
    std::vector<ring::Buffer> writable;
    while (true) {
      readable.resize(random_() % 3);
      writable.resize(random_() % 3);
      const size_t count = readable.size() + writable.size();
      if (count == 0 || count > GetParam().size) continue;
      for (ring::Buffer& buffer : readable)
        buffer = {.address = {data_ + random_() % 60'000}, .length = static_cast<uint32_t>(random_() % 4000)};
      for (ring::Buffer& buffer : writable)
        buffer = {.address = {data_ + random_() % 60'000}, .length = static_cast<uint32_t>(random_() % 4000)};
      if (!rig_.front.add(readable, writable)) return descriptors;
      const bool indirect = count > 1 && count <= GetParam().table_entries;
      descriptors += count + (indirect ? 1 : 0);
    }
  }

  void watch() { ReadCounter::watch(guest_.data(), guest_.size()); }

  // The largest count of the bytes from guest address `at` on, and the sum of the counts.
  static unsigned most(uint64_t at, uint64_t bytes) {
    unsigned most = 0;
    for (const uint8_t count : ReadCounter::counts().subspan(at - Guest::base, bytes))
      most = std::max<unsigned>(most, count);
    return most;
  }
  static uint64_t reads_of(uint64_t at, uint64_t bytes) {
    uint64_t sum = 0;
    for (const uint8_t count : ReadCounter::counts().subspan(at - Guest::base, bytes)) sum += count;
    return sum;
  }
  [[nodiscard]] bool packed() const { return GetParam().format.packed; }
  [[nodiscard]] uint64_t tables() const { return rig_.layout.area + layout().tables; }
  [[nodiscard]] ring::DriverLayout layout() const {
    return ring::DriverLayout::of(GetParam().size, GetParam().format, GetParam().table_entries);
  }
  [[nodiscard]] uint64_t table_bytes() const { return layout().bytes - layout().tables; }

  // Everything but what may be polled: no byte more than once.
  void expect_read_once() {
    const uint64_t entries = ring::RingConfig::desc_bytes(GetParam().size, GetParam().format);
    EXPECT_LE(most(tables(), table_bytes()), 1U) << "an indirect table";
    EXPECT_EQ(most(data_, 64 * 1024), 0U) << "a buffer";
    EXPECT_EQ(most(rig_.layout.device, layout().tables - layout().device), 0U) << "our own area";
    if (packed()) {
      for (uint64_t at = rig_.layout.desc; at < rig_.layout.desc + entries; at += 16) {
        EXPECT_LE(most(at, 14), 1U) << "descriptor";
        EXPECT_LE(most(at + 14, 2), available(at) ? 1U : 9U) << "flags";
      }
    } else {
      EXPECT_LE(most(rig_.layout.desc, entries), 1U) << "a descriptor";
      EXPECT_LE(most(rig_.layout.driver + 4, layout().device - layout().driver - 4), 1U)
          << "an available entry";
      EXPECT_EQ(most(rig_.layout.driver, 2), 0U) << "event suppression";
    }
  }
  // The driver has used this entry since the last time.
  [[nodiscard]] bool available(uint64_t at) const { return std::ranges::find(fresh_, at) != fresh_.end(); }

  std::mt19937 random_{1};
  Guest guest_;
  uint64_t data_;
  Rig rig_;
  std::vector<uint64_t> fresh_;
};

TEST_P(ReadOnce, what_a_driver_writes_is_read_once_per_chain) {
  for (int round = 0; round < 300; ++round) {
    const std::vector<std::byte> before(guest_.at(rig_.layout.desc),
                                        guest_.at(rig_.layout.desc) + GetParam().size * 16);
    const uint64_t descriptors = add_chains();
    rig_.front.publish();
    fresh_.clear();
    for (uint64_t i = 0; i < GetParam().size * 16ULL; i += 16) {
      if (std::memcmp(before.data() + i, guest_.at(rig_.layout.desc + i), 16) != 0)
        fresh_.push_back(rig_.layout.desc + i);
    }
    watch();
    std::vector<Chain> chains;
    while (Chain chain = rig_.device.pop()) chains.push_back(std::move(chain));
    ReadCounter::stop();
    ASSERT_FALSE(chains.empty());
    expect_read_once();
    EXPECT_GE(reads_of(rig_.layout.desc, layout().driver) + reads_of(tables(), table_bytes()),
              16 * descriptors);

    watch();
    std::ranges::shuffle(chains, random_);
    for (Chain& chain : chains) rig_.device.push_used(std::move(chain), 0);
    rig_.device.publish();
    ReadCounter::stop();
    EXPECT_LE(std::ranges::max(ReadCounter::counts()), 1) << "event suppression";
    EXPECT_EQ(most(rig_.layout.desc, layout().driver), 0U) << "a descriptor when publishing";
    EXPECT_EQ(most(rig_.layout.device, layout().tables - layout().device), 0U)
        << "our own area when publishing";
    while (rig_.front.take_used()) continue;
    if (HasFailure()) return;
  }
}

TEST_P(ReadOnce, what_a_device_writes_is_read_once_per_chain) {
  for (int round = 0; round < 300; ++round) {
    add_chains();
    rig_.front.publish();
    std::vector<Chain> chains;
    while (Chain chain = rig_.device.pop()) chains.push_back(std::move(chain));
    std::ranges::shuffle(chains, random_);
    size_t count = chains.size();
    for (Chain& chain : chains) rig_.device.push_used(std::move(chain), 0);
    rig_.device.publish();

    watch();
    for (; count > 0; --count) ASSERT_TRUE(rig_.front.take_used());
    ReadCounter::stop();
    if (packed()) {
      // Flags say whether there is something; the rest is the answer.
      for (uint64_t at = 0; at < GetParam().size * 16ULL; at += 16) {
        ASSERT_LE(most(rig_.layout.desc + at, 14), 1U);
      }
      ASSERT_LE(most(rig_.layout.device, 4), 1U);
    } else {
      ASSERT_EQ(most(rig_.layout.desc, layout().device), 0U) << "our own area";
      ASSERT_LE(most(rig_.layout.device + 4, layout().tables - layout().device - 4), 1U) << "a used entry";
    }
    ASSERT_EQ(most(tables(), table_bytes()), 0U) << "our own tables";
  }
}

INSTANTIATE_TEST_SUITE_P(Rings, ReadOnce, testing::ValuesIn(cases),
                         [](const auto& one) { return one.param.name; });

// ---- block requests
// ---------------------------------------------------------------------------------------------------

class BlkReadOnce : public testing::Test {
 protected:
  BlkReadOnce() : guest_(guest_bytes), data_(guest_.allocate(4096, 4096)), rig_(guest_, {.size = 64}) {
    disk_.capacity = 1000;
    disk_.features = ~uint64_t{0};
    disk_.geometry.max_discard = disk_.geometry.max_write_zeroes = 1 << 20;
  }

  // A request of these bytes, readable in pieces of `piece` bytes, and what reading it cost.
  std::string parse(std::span<const std::byte> bytes, uint32_t piece, uint32_t writable) {
    std::memcpy(guest_.at(data_), bytes.data(), bytes.size());
    std::vector<ring::Buffer> readable;
    for (uint32_t at = 0; at < bytes.size(); at += piece) {
      readable.push_back(
          {.address = {data_ + at}, .length = std::min(piece, static_cast<uint32_t>(bytes.size()) - at)});
    }
    EXPECT_TRUE(rig_.front.add(readable, {{.address = {data_ + 2048}, .length = writable}}));
    rig_.front.publish();
    Chain chain = rig_.device.pop();
    ReadCounter::watch(guest_.at(data_), 4096);
    blk::Request request;
    request.parse(std::move(chain), disk_);
    ReadCounter::stop();
    std::string text;
    for (const uint8_t count : ReadCounter::counts()) text += std::to_string(count);
    rig_.device.push_used(std::move(request.chain), 1);
    rig_.device.publish();
    EXPECT_TRUE(rig_.front.take_used());
    return text;
  }

  static std::string once(size_t bytes) { return std::string(bytes, '1') + std::string(4096 - bytes, '0'); }

  struct Header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
  };
  struct Range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
  };

  Guest guest_;
  uint64_t data_;
  Rig rig_;
  blk::Disk disk_;
};

TEST_F(BlkReadOnce, a_header_is_read_once_however_it_is_cut_and_the_rest_not_at_all) {
  struct {
    Header header;
    std::byte data[512];
  } write{.header = {.type = VIRTIO_BLK_T_OUT, .reserved = 0, .sector = 3}, .data = {}};
  const auto bytes = std::as_bytes(std::span(&write, 1));
  for (const uint32_t piece : {528U, 16U, 9U}) EXPECT_EQ(parse(bytes, piece, 1), once(16)) << piece;
  const Header read{.type = VIRTIO_BLK_T_IN, .reserved = 0, .sector = 3};
  for (const uint32_t piece : {16U, 5U, 1U}) {
    EXPECT_EQ(parse(std::as_bytes(std::span(&read, 1)), piece, 513), once(16)) << piece;
  }
}

TEST_F(BlkReadOnce, ranges_are_read_once) {
  struct {
    Header header{.type = VIRTIO_BLK_T_WRITE_ZEROES, .reserved = 0, .sector = 0};
    Range ranges[3] = {{1, 8, 1}, {10, 8, 0}, {100, 1, 1}};
  } request;
  const auto bytes = std::as_bytes(std::span(&request, 1));
  for (const uint32_t piece : {64U, 16U, 7U, 3U}) EXPECT_EQ(parse(bytes, piece, 1), once(64)) << piece;
}

}  // namespace
}  // namespace ringway
