// Requests of all kinds, good and bad, through the real queue over a small disk in memory. The numbers are
// those of docs/robustness.md; statuses and lengths are VIRTIO's ("Block Device / Device Operation").
#include "ringway/device/blk/blk.h"

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "ringway/device/backing/memory.h"
#include "ringway/ring/rig_test.h"

namespace ringway::blk {
namespace {

using ring::Buffer;
using ring::test::Guest;
using ring::test::Rig;

constexpr uint64_t sectors = 64;
constexpr uint8_t untouched = 0x55;
constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }
constexpr uint64_t all_features = bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_DISCARD) |
                                  bit(VIRTIO_BLK_F_WRITE_ZEROES) | bit(VIRTIO_BLK_F_SECURE_ERASE) |
                                  bit(VIRTIO_BLK_F_CONFIG_WCE);

using Bytes = std::vector<std::byte>;

template <class... Parts>
Bytes join(const Parts&... parts) {
  Bytes bytes;
  const auto append = [&](const auto& part) {
    const auto* from = reinterpret_cast<const std::byte*>(&part);
    bytes.insert(bytes.end(), from, from + sizeof part);
  };
  (append(parts), ...);
  return bytes;
}

Bytes header(uint32_t type, uint64_t sector = 0) { return join(type, uint32_t{0}, sector); }

Bytes pattern(size_t size, uint8_t first = 1) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(first + i * 31 + i / 256);
  return bytes;
}

struct WireRange {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};

// A disk with one queue, whose driver lays its requests out as it likes.
class BlkTest : public testing::Test, public engine::QueueLoop {
 protected:
  void open(bool read_only = false, uint64_t features = all_features) {
    features_ = features;
    blk_ = std::make_unique<Blk>(*backing::open_memory(sectors * 512, read_only),
                                 Blk::Options{.queues = 1, .serial = "serial"});
    blk_->set_features(features);
    loop_->run([&] { queue_ = blk_->start_queue(*this); });
  }
  void TearDown() override {
    loop_->run([&] { queue_.reset(); });
  }

  // What came of a request: its status, what used says was written, and the writable bytes without the
  // status.
  struct Answer {
    int status = -1;
    uint32_t written = 0;
    Bytes data;
  };
  // `cuts`: the readable bytes and the writable ones (`room` and a status) are cut into pieces of this size.
  Answer ask(const Bytes& readable, size_t room = 0, uint32_t cut = 1 << 20) {
    std::memcpy(guest_.at(in_), readable.data(), readable.size());
    std::memset(guest_.at(out_), untouched, room + 1);
    const uint32_t written = serve(pieces(in_, readable.size(), cut), pieces(out_, room + 1, cut));
    const std::byte* const from = guest_.at(out_);
    return {.status = static_cast<int>(from[room]), .written = written, .data = Bytes(from, from + room)};
  }
  uint32_t serve(const std::vector<Buffer>& readable, const std::vector<Buffer>& writable) {
    EXPECT_TRUE(rig_.front.add(readable, writable));
    rig_.front.publish();
    loop_->run([&] {
      queue_->process(rig_.device.pop());
      queue_->flush();
    });
    rig_.device.publish();
    const auto used = rig_.front.take_used();
    EXPECT_TRUE(used) << "the request did not come back";
    return used ? used->written : 0;
  }
  static std::vector<Buffer> pieces(uint64_t at, size_t size, uint32_t cut) {
    std::vector<Buffer> all;
    for (uint64_t done = 0; done < size; done += cut) {
      all.push_back(
          {.address = {at + done}, .length = static_cast<uint32_t>(std::min<uint64_t>(cut, size - done))});
    }
    return all;
  }
  static Bytes with(Bytes head, const Bytes& tail) {
    head.insert(head.end(), tail.begin(), tail.end());
    return head;
  }
  template <class... Ranges>
  int ask_ranges(uint32_t type, const Ranges&... ranges) {
    return ask(with(header(type), join(ranges...))).status;
  }
  Bytes contents() { return ask(header(VIRTIO_BLK_T_IN), sectors * 512).data; }

  // QueueLoop
  void complete(ring::Chain chain, uint32_t written) override {
    if (suspended_) return rig_.device.abandon(std::move(chain));
    rig_.device.push_used(std::move(chain), written);
  }
  void give_back(ring::Chain chain) override {
    ADD_FAILURE() << "a disk answers every request";
    rig_.device.push_back(std::move(chain));
  }
  void fail(ring::Chain chain, Error error) override {
    ADD_FAILURE() << error.to_string();
    rig_.device.abandon(std::move(chain));
  }
  [[nodiscard]] loop::Loop& worker() override { return *loop_; }
  [[nodiscard]] uint16_t index() const override { return 0; }
  [[nodiscard]] uint32_t ring_size() const override { return 256; }
  [[nodiscard]] uint64_t features() const override { return features_; }
  [[nodiscard]] bool big_endian() const override { return big_endian_; }
  [[nodiscard]] bool is_suspended() const override { return suspended_; }

  std::unique_ptr<loop::Loop> loop_ = *loop::Loop::start({.use_io_uring = false});
  Guest guest_{1 << 20};
  const uint64_t in_ = guest_.allocate(128 * 1024, 4096);
  const uint64_t out_ = guest_.allocate(128 * 1024, 4096);
  Rig rig_{guest_, {.size = 256}};
  std::unique_ptr<Blk> blk_;
  std::unique_ptr<engine::Queue> queue_;
  uint64_t features_ = 0;
  bool big_endian_ = false;
  bool suspended_ = false;
};

TEST_F(BlkTest, what_is_written_is_read_and_used_says_how_much) {
  open();
  const Bytes data = pattern(1024);
  const Answer write = ask(with(header(VIRTIO_BLK_T_OUT, 3), data));
  EXPECT_EQ(write.status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(write.written, 1U);
  const Answer read = ask(header(VIRTIO_BLK_T_IN, 3), 1024);
  EXPECT_EQ(read.status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(read.written, 1025U);
  EXPECT_EQ(read.data, data);
}

TEST_F(BlkTest, H239_header_data_and_status_may_be_cut_and_joined_anywhere) {
  open();
  for (const uint32_t cut : {1U << 20, 1024U, 513U, 512U, 17U, 16U, 15U, 5U}) {
    const Bytes data = pattern(1024, static_cast<uint8_t>(cut));
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_OUT, 7), data), 0, cut).status, VIRTIO_BLK_S_OK) << cut;
    const Answer read = ask(header(VIRTIO_BLK_T_IN, 7), 1024, cut);
    EXPECT_EQ(read.status, VIRTIO_BLK_S_OK) << cut;
    EXPECT_EQ(read.data, data) << cut;
  }
  const Answer bytes = ask(header(VIRTIO_BLK_T_IN, 7), 0, 1);
  EXPECT_EQ(bytes.status, VIRTIO_BLK_S_OK);
}

TEST_F(BlkTest, H239_H193_a_header_that_is_short_or_missing_is_an_error) {
  open();
  Bytes head = header(VIRTIO_BLK_T_IN);
  while (!head.empty()) {
    head.pop_back();
    const Answer answer = ask(head, 512);
    EXPECT_EQ(answer.status, VIRTIO_BLK_S_IOERR) << head.size();
    EXPECT_EQ(answer.written, 1U);
    EXPECT_EQ(answer.data, Bytes(512, std::byte{untouched}));
  }
}

TEST_F(BlkTest, a_request_without_room_for_a_status_comes_back_and_does_nothing) {
  open();
  const Bytes before = contents();
  std::memcpy(guest_.at(in_), header(VIRTIO_BLK_T_OUT).data(), 16);
  EXPECT_EQ(serve(pieces(in_, 528, 1024), {}), 0U);
  EXPECT_EQ(serve(pieces(in_, 528, 1024), {{.address = {out_}, .length = 0}}), 0U);
  EXPECT_EQ(contents(), before);
}

TEST_F(BlkTest, H193_empty_pieces_anywhere_are_nothing) {
  open();
  std::memcpy(guest_.at(in_), header(VIRTIO_BLK_T_IN).data(), 16);
  const Buffer nothing_in{.address = {in_}, .length = 0};
  const Buffer nothing_out{.address = {out_}, .length = 0};
  const uint32_t written = serve({nothing_in, {.address = {in_}, .length = 16}, nothing_in},
                                 {nothing_out,
                                  {.address = {out_}, .length = 512},
                                  nothing_out,
                                  {.address = {out_ + 512}, .length = 1},
                                  nothing_out});
  EXPECT_EQ(written, 513U);
  EXPECT_EQ(static_cast<int>(*guest_.at(out_ + 512)), VIRTIO_BLK_S_OK);
}

TEST_F(BlkTest, H241_nothing_beyond_the_capacity_is_transferred_however_it_wraps) {
  open();
  const Bytes before = contents();
  for (const uint64_t sector :
       {sectors, sectors - 1, uint64_t{1} << 55, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 1}) {
    const Answer read = ask(header(VIRTIO_BLK_T_IN, sector), 1024);
    EXPECT_EQ(read.status, VIRTIO_BLK_S_IOERR) << sector;
    EXPECT_EQ(read.data, Bytes(1024, std::byte{untouched}));
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_OUT, sector), pattern(1024))).status, VIRTIO_BLK_S_IOERR)
        << sector;
  }
  EXPECT_EQ(ask(header(VIRTIO_BLK_T_IN, sectors - 2), 1024).status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(contents(), before);
}

TEST_F(BlkTest, H242_lengths_that_are_no_whole_sectors_are_errors) {
  open();
  const Bytes before = contents();
  for (const size_t length : {1U, 511U, 513U, 1023U}) {
    EXPECT_EQ(ask(header(VIRTIO_BLK_T_IN), length).status, VIRTIO_BLK_S_IOERR) << length;
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_OUT), pattern(length))).status, VIRTIO_BLK_S_IOERR) << length;
  }
  EXPECT_EQ(ask(header(VIRTIO_BLK_T_IN)).status, VIRTIO_BLK_S_OK) << "nothing is a whole number of sectors";
  EXPECT_EQ(contents(), before);
}

TEST_F(BlkTest, H244_a_read_only_disk_is_not_changed) {
  open(true);
  EXPECT_NE(blk_->features() & bit(VIRTIO_BLK_F_RO), 0U);
  const Bytes before = contents();
  EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_OUT), pattern(512))).status, VIRTIO_BLK_S_IOERR);
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(ask_ranges(type, WireRange{0, 8, 0}), VIRTIO_BLK_S_IOERR) << type;
  }
  EXPECT_EQ(contents(), before);
}

TEST_F(BlkTest, H245_a_FLUSH_succeeds_whatever_comes_with_it_and_whether_it_was_negotiated) {
  for (const uint64_t features : {all_features, uint64_t{0}}) {
    open(false, features);
    EXPECT_EQ(ask(header(VIRTIO_BLK_T_FLUSH)).status, VIRTIO_BLK_S_OK);
    EXPECT_EQ(ask(header(VIRTIO_BLK_T_FLUSH, 77)).status, VIRTIO_BLK_S_OK);
    const Answer with_data = ask(with(header(VIRTIO_BLK_T_FLUSH), pattern(512)), 512);
    EXPECT_EQ(with_data.status, VIRTIO_BLK_S_OK);
    EXPECT_EQ(with_data.written, 1U);
    TearDown();
  }
}

TEST_F(BlkTest, H247_ranges_are_zeroed_and_their_neighbours_are_not) {
  open();
  for (const uint32_t type : {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    ASSERT_EQ(ask(with(header(VIRTIO_BLK_T_OUT), Bytes(sectors * 512, std::byte{0xaa}))).status,
              VIRTIO_BLK_S_OK);
    EXPECT_EQ(ask_ranges(type, WireRange{1, 2, 0}, WireRange{10, 1, 0}), VIRTIO_BLK_S_OK);
    const Bytes after = contents();
    for (uint64_t sector = 0; sector < sectors; ++sector) {
      const bool zeroed = sector == 1 || sector == 2 || sector == 10;
      EXPECT_EQ(after[sector * 512], std::byte{zeroed ? uint8_t{0} : uint8_t{0xaa}}) << sector;
      EXPECT_EQ(after[sector * 512 + 511], std::byte{zeroed ? uint8_t{0} : uint8_t{0xaa}}) << sector;
    }
  }
}

TEST_F(BlkTest, H247_a_range_list_that_is_empty_or_cut_is_an_error) {
  open();
  for (const size_t length : {0U, 1U, 15U, 17U, 31U}) {
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_DISCARD), Bytes(length))).status, VIRTIO_BLK_S_IOERR) << length;
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_WRITE_ZEROES), Bytes(length))).status, VIRTIO_BLK_S_IOERR)
        << length;
  }
}

TEST_F(BlkTest, H247_a_range_beyond_the_capacity_or_the_limit_is_an_error_and_an_unknown_flag_unsupported) {
  open();
  ASSERT_EQ(ask(with(header(VIRTIO_BLK_T_OUT), Bytes(sectors * 512, std::byte{0xaa}))).status,
            VIRTIO_BLK_S_OK);
  const Bytes before = contents();
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(ask_ranges(type, WireRange{sectors, 1, 0}), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(ask_ranges(type, WireRange{sectors - 1, 2, 0}), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(ask_ranges(type, WireRange{0, 0xffffffff, 0}), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(ask_ranges(type, WireRange{uint64_t{1} << 63, 1, 0}), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(ask_ranges(type, WireRange{~uint64_t{0}, 1, 0}), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(ask_ranges(type, WireRange{0, 8, 2}), VIRTIO_BLK_S_UNSUPP);
    EXPECT_EQ(ask_ranges(type, WireRange{0, 8, 0x80000000}), VIRTIO_BLK_S_UNSUPP);
    // A bad range behind a good one: nothing is done.
    EXPECT_EQ(ask_ranges(type, WireRange{0, 8, 0}, WireRange{sectors, 1, 0}), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(ask_ranges(type, WireRange{0, 0, 0}), VIRTIO_BLK_S_OK) << "an empty range";
  }
  EXPECT_EQ(ask_ranges(VIRTIO_BLK_T_DISCARD, WireRange{0, 8, 1}), VIRTIO_BLK_S_UNSUPP) << "unmap";
  EXPECT_EQ(contents(), before);
  EXPECT_EQ(ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, WireRange{0, 8, 1}), VIRTIO_BLK_S_OK);
}

TEST_F(BlkTest, H247_more_ranges_than_announced_are_unsupported_however_many) {
  open();
  for (const size_t count : {size_t{max_ranges} + 1, size_t{4000}}) {
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_DISCARD), Bytes(count * 16))).status, VIRTIO_BLK_S_UNSUPP);
  }
  EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_DISCARD), Bytes(size_t{max_ranges} * 16))).status, VIRTIO_BLK_S_OK);
}

TEST_F(BlkTest, H247_what_was_not_negotiated_is_unsupported) {
  open(false, 0);
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(ask_ranges(type, WireRange{0, 8, 0}), VIRTIO_BLK_S_UNSUPP);
  }
}

TEST_F(BlkTest, H248_H256_requests_of_unknown_types_are_unsupported_with_a_status) {
  open();
  // Zoned requests are among these: 15 to 24.
  for (uint32_t type = 0; type < 40; ++type) {
    const bool known = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_FLUSH ||
                       type == VIRTIO_BLK_T_GET_ID || type == VIRTIO_BLK_T_DISCARD ||
                       type == VIRTIO_BLK_T_WRITE_ZEROES || type == VIRTIO_BLK_T_SECURE_ERASE;
    if (known) continue;
    const Answer answer = ask(header(type), 512);
    EXPECT_EQ(answer.status, VIRTIO_BLK_S_UNSUPP) << type;
    EXPECT_EQ(answer.written, 1U);
  }
  EXPECT_EQ(ask(header(0x80000000)).status, VIRTIO_BLK_S_UNSUPP);
}

TEST_F(BlkTest, GET_ID_gives_the_serial_in_20_bytes_or_as_many_as_there_is_room_for) {
  open();
  const Answer full = ask(header(VIRTIO_BLK_T_GET_ID), 20);
  EXPECT_EQ(full.status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(full.written, 21U);
  EXPECT_EQ(std::memcmp(full.data.data(), "serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20), 0);
  const Answer part = ask(header(VIRTIO_BLK_T_GET_ID), 3);
  EXPECT_EQ(part.status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(part.written, 4U);
  const Answer more = ask(header(VIRTIO_BLK_T_GET_ID), 100);
  EXPECT_EQ(more.status, VIRTIO_BLK_S_OK);
  EXPECT_EQ(more.data[20], std::byte{untouched});
}

TEST_F(BlkTest, a_legacy_driver_of_the_other_byte_order_is_understood) {
  big_endian_ = true;
  open();
  const Bytes data = pattern(512);
  const Bytes head = join(std::byteswap(uint32_t{VIRTIO_BLK_T_OUT}), uint32_t{0}, std::byteswap(uint64_t{5}));
  EXPECT_EQ(ask(with(head, data)).status, VIRTIO_BLK_S_OK);
  const Bytes back = join(std::byteswap(uint32_t{VIRTIO_BLK_T_IN}), uint32_t{0}, std::byteswap(uint64_t{5}));
  EXPECT_EQ(ask(back, 512).data, data);
}

TEST_F(BlkTest, N108_only_the_cache_mode_may_be_written_and_only_if_it_was_negotiated) {
  open();
  const std::byte value{0};
  const auto write = [&](uint32_t offset, bool restore = false) {
    return blk_->write_config(offset, std::span(&value, 1), restore).has_value();
  };
  EXPECT_TRUE(write(offsetof(Config, writeback)));
  for (uint32_t offset = 0; offset < sizeof(Config); ++offset) {
    EXPECT_EQ(write(offset), offset == offsetof(Config, writeback)) << offset;
  }
  EXPECT_TRUE(write(0, true)) << "a migrating front-end restores what it has read";
  Config after;
  blk_->read_config(0, std::as_writable_bytes(std::span(&after, 1)));
  EXPECT_EQ(after.capacity, sectors);
  blk_->set_features(0);
  EXPECT_FALSE(write(offsetof(Config, writeback)));
}

// ---- stable storage

// A backing that notes what it is asked, and ends it at once or when it is told.
class NotingBacking final : public backing::Backing {
 public:
  struct Asked {
    backing::Operation operation;
    bool durable;
    bool operator==(const Asked&) const = default;
  };
  NotingBacking() { capacity_ = sectors * 512; }
  std::unique_ptr<backing::Lane> open_lane(loop::Loop&) override {
    return std::make_unique<NotingLane>(*this);
  }
  Result<> flush_now() override {
    ++flushes_;
    return {};
  }
  Result<bool> refresh() override { return capacity_.exchange(grown_ * 512) != grown_ * 512; }

  std::vector<Asked> asked_;  // by the worker
  unsigned flushes_ = 0;      // flush_now()
  uint64_t grown_ = sectors;  // what refresh() finds
  bool holding_ = false;
  backing::Request* held_ = nullptr;

 private:
  class NotingLane final : public backing::Lane {
   public:
    explicit NotingLane(NotingBacking& backing) : backing_(backing) {}
    backing::Outcome submit(backing::Request& request) override {
      backing_.asked_.push_back({request.operation, request.durable});
      if (!backing_.holding_) return 0;
      backing_.held_ = &request;
      return std::nullopt;
    }

   private:
    NotingBacking& backing_;
  };
};

class BlkStorage : public BlkTest {
 protected:
  using Asked = NotingBacking::Asked;

  void open_noting(uint64_t features = all_features) {
    features_ = features;
    auto noting = std::make_unique<NotingBacking>();
    noting_ = noting.get();
    blk_ = std::make_unique<Blk>(std::move(noting), Blk::Options{.queues = 1, .serial = "serial"});
    blk_->set_features(features);
    loop_->run([&] { queue_ = blk_->start_queue(*this); });
  }
  bool write_is_durable() {
    EXPECT_EQ(ask(with(header(VIRTIO_BLK_T_OUT), pattern(512))).status, VIRTIO_BLK_S_OK);
    return noting_->asked_.back().durable;
  }
  void cache(bool on) {
    const std::byte value{on};
    ASSERT_TRUE(blk_->write_config(offsetof(Config, writeback), std::span(&value, 1), false));
  }
  NotingBacking* noting_ = nullptr;
};

TEST_F(BlkStorage, writes_are_stable_when_they_end_if_nobody_will_ask_for_a_flush) {
  open_noting();
  EXPECT_FALSE(write_is_durable());
  cache(false);
  EXPECT_TRUE(write_is_durable());
  cache(true);
  EXPECT_FALSE(write_is_durable());
  cache(false);
  blk_->reset();
  EXPECT_FALSE(write_is_durable()) << "the next driver finds the cache on";
  TearDown();
  open_noting(all_features & ~bit(VIRTIO_BLK_F_FLUSH));
  EXPECT_TRUE(write_is_durable()) << "a driver without FLUSH";
}

TEST_F(BlkStorage, switching_the_cache_off_makes_stable_what_was_written_before) {
  open_noting();
  EXPECT_EQ(noting_->flushes_, 0U);
  cache(false);
  EXPECT_EQ(noting_->flushes_, 1U);
  cache(false);
  cache(true);
  EXPECT_EQ(noting_->flushes_, 1U);
}

TEST_F(BlkStorage, a_write_that_is_under_way_when_the_cache_is_switched_off_ends_when_it_is_stable) {
  open_noting();
  noting_->holding_ = true;
  std::memcpy(guest_.at(in_), header(VIRTIO_BLK_T_OUT).data(), 16);
  ASSERT_TRUE(rig_.front.add(pieces(in_, 528, 1024), pieces(out_, 1, 1)));
  rig_.front.publish();
  loop_->run([&] { queue_->process(rig_.device.pop()); });
  cache(false);
  const auto end_one = [&] {
    loop_->run([&] { noting_->held_->done(*noting_->held_, 0); });
    rig_.device.publish();
  };
  end_one();
  EXPECT_FALSE(rig_.front.take_used());
  const std::vector<Asked> asked{{backing::Operation::write, false}, {backing::Operation::flush, false}};
  EXPECT_EQ(noting_->asked_, asked);
  end_one();
  EXPECT_TRUE(rig_.front.take_used());
  EXPECT_EQ(static_cast<int>(*guest_.at(out_)), VIRTIO_BLK_S_OK);
}

TEST_F(BlkStorage, N129_what_ends_after_a_stop_that_did_not_wait_writes_no_status_and_begins_nothing) {
  open_noting();
  noting_->holding_ = true;
  std::memcpy(guest_.at(in_), header(VIRTIO_BLK_T_OUT).data(), 16);
  std::memset(guest_.at(out_), untouched, 1);
  ASSERT_TRUE(rig_.front.add(pieces(in_, 528, 1024), pieces(out_, 1, 1)));
  rig_.front.publish();
  loop_->run([&] { queue_->process(rig_.device.pop()); });
  cache(false);  // a flush would follow
  loop_->run([&] {
    suspended_ = true;
    noting_->held_->done(*noting_->held_, 0);
  });
  EXPECT_EQ(noting_->asked_.size(), 1U);
  EXPECT_EQ(static_cast<uint8_t>(*guest_.at(out_)), untouched);
  rig_.device.publish();
  EXPECT_FALSE(rig_.front.take_used());
}

TEST_F(BlkStorage, growth_is_told_when_it_is_looked_for_and_served_at_once) {
  open_noting();
  unsigned told = 0;
  blk_->on_config_change([&] { ++told; });
  ASSERT_TRUE(blk_->refresh());
  EXPECT_EQ(told, 0U);
  EXPECT_EQ(ask(header(VIRTIO_BLK_T_IN, sectors), 512).status, VIRTIO_BLK_S_IOERR);
  noting_->grown_ = 2 * sectors;
  ASSERT_TRUE(blk_->refresh());
  EXPECT_EQ(told, 1U);
  Config config;
  blk_->read_config(0, std::as_writable_bytes(std::span(&config, 1)));
  EXPECT_EQ(config.capacity, 2 * sectors);
  EXPECT_EQ(ask(header(VIRTIO_BLK_T_IN, sectors), 512).status, VIRTIO_BLK_S_OK);
}

}  // namespace
}  // namespace ringway::blk
