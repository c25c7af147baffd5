#include "ringway/device/blk/request.h"

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "ringway/base/endian.h"

namespace ringway::blk {
namespace {

using backing::Operation;

struct WireHeader {
  le32 type;
  le32 reserved;
  le64 sector;
};
struct WireRange {
  le64 sector;
  le32 sectors;
  le32 flags;
};

class BlkRequest : public testing::Test {
 protected:
  BlkRequest() {
    disk_.capacity = 1000;
    disk_.features = uint64_t{1} << VIRTIO_BLK_F_DISCARD | uint64_t{1} << VIRTIO_BLK_F_WRITE_ZEROES |
                     uint64_t{1} << VIRTIO_BLK_F_SECURE_ERASE | uint64_t{1} << VIRTIO_BLK_F_FLUSH;
    disk_.geometry.max_discard = disk_.geometry.max_write_zeroes = disk_.geometry.max_secure_erase =
        100 * 512;
    std::memcpy(disk_.serial.data(), "serial", 6);
  }
  ~BlkRequest() override { end_chain(); }

  static WireHeader header(uint32_t type, uint64_t sector) {
    WireHeader wire;
    wire.type = type;
    wire.sector = sector;
    return wire;
  }
  static WireRange range(uint64_t sector, uint32_t sectors, uint32_t flags = 0) {
    WireRange wire;
    wire.sector = sector;
    wire.sectors = sectors;
    wire.flags = flags;
    return wire;
  }
  template <class T>
  void readable(const T& value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    out_.insert(out_.end(), bytes, bytes + sizeof value);
  }

  // Parses a request of `out_` and `in` writable bytes, cut into pieces of at most `piece` bytes.
  std::optional<uint8_t> parse(size_t in, size_t piece = SIZE_MAX) {
    end_chain();
    in_.assign(in, std::byte{0xaa});
    pieces_.clear();
    const size_t readable_pieces = cut(out_, piece);
    cut(in_, piece);
    slot_ = {};
    slot_.readable = static_cast<uint16_t>(readable_pieces);
    slot_.writable = static_cast<uint16_t>(pieces_.size() - readable_pieces);
    slot_.spilled = true;
    slot_.place[0].iov_base = pieces_.data();
    return request_.parse(ring::Chain(slot_), disk_);
  }
  std::optional<uint8_t> parse_ranges(uint32_t type, std::initializer_list<WireRange> ranges) {
    out_.clear();
    readable(header(type, 0));
    for (const WireRange& one : ranges) readable(one);
    return parse(1);
  }
  std::optional<uint8_t> parse_transfer(uint32_t type, uint64_t sector, size_t bytes,
                                        size_t piece = SIZE_MAX) {
    out_.clear();
    readable(header(type, sector));
    if (type == VIRTIO_BLK_T_OUT) out_.resize(out_.size() + bytes, std::byte{0x55});
    return parse((type == VIRTIO_BLK_T_IN ? bytes : 0) + 1, piece);
  }

  Disk disk_;
  std::vector<std::byte> out_;
  std::vector<std::byte> in_;
  Request request_;

 private:
  void end_chain() {
    if (request_.chain) (void)request_.chain.end();
  }
  size_t cut(std::vector<std::byte>& bytes, size_t piece) {
    const size_t before = pieces_.size();
    for (size_t at = 0; at < bytes.size(); at += std::min(piece, bytes.size() - at)) {
      pieces_.push_back({.iov_base = &bytes[at], .iov_len = std::min(piece, bytes.size() - at)});
    }
    return pieces_.size() - before;
  }
  std::vector<iovec> pieces_;
  ring::Slot slot_{};
};

TEST_F(BlkRequest, H239_header_data_and_status_may_be_cut_anywhere) {
  for (const uint32_t type : {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT}) {
    for (size_t piece = 1; piece < 40; ++piece) {
      ASSERT_EQ(parse_transfer(type, 7, 512, piece), std::nullopt) << piece;
      EXPECT_EQ(request_.io.offset, 7U * 512);
      EXPECT_EQ(request_.io.length, 512U);
      uint64_t covered = 0;
      for (const iovec& one : request_.io.pieces) covered += one.iov_len;
      EXPECT_EQ(covered, 512U);
      const auto& data = type == VIRTIO_BLK_T_IN ? in_ : out_;
      EXPECT_EQ(request_.io.pieces[0].iov_base, &data[type == VIRTIO_BLK_T_IN ? 0 : 16]);
      request_.status.write(VIRTIO_BLK_S_OK);
      EXPECT_EQ(in_.back(), std::byte{VIRTIO_BLK_S_OK});
      EXPECT_EQ(std::count(in_.begin(), in_.end(), std::byte{0xaa}), static_cast<ptrdiff_t>(in_.size()) - 1);
    }
  }
}

TEST_F(BlkRequest, H239_a_header_that_is_too_short_is_an_error) {
  for (size_t length = 0; length < 16; ++length) {
    out_.assign(length, std::byte{0});
    EXPECT_EQ(parse(513), VIRTIO_BLK_S_IOERR) << length;
  }
}

TEST_F(BlkRequest, H241_nothing_beyond_the_capacity_is_transferred) {
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_IN, 999, 512), std::nullopt);
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_IN, 999, 1024), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 1000, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 512), VIRTIO_BLK_S_IOERR);
}

TEST_F(BlkRequest, H242_data_is_whole_sectors) {
  for (const size_t bytes : {1, 511, 513, 1000}) {
    EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_IN, 0, bytes), VIRTIO_BLK_S_IOERR) << bytes;
    EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 0, bytes), VIRTIO_BLK_S_IOERR) << bytes;
  }
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_OK);
}

TEST_F(BlkRequest, H244_a_read_only_disk_refuses_whatever_changes_it) {
  disk_.read_only = true;
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_IN, 0, 512), std::nullopt);
  EXPECT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(parse_ranges(type, {range(0, 1)}), VIRTIO_BLK_S_IOERR) << type;
  }
}

TEST_F(BlkRequest, H245_a_flush_is_a_flush_whatever_comes_with_it) {
  out_.clear();
  readable(header(VIRTIO_BLK_T_FLUSH, 12345));
  out_.resize(600);
  ASSERT_EQ(parse(100), std::nullopt);
  EXPECT_EQ(request_.io.operation, Operation::flush);
}

TEST_F(BlkRequest, H247_ranges_get_the_statuses_of_the_specification) {
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(parse_ranges(type, {range(0, 100)}), std::nullopt) << type;
    EXPECT_EQ(parse_ranges(type, {}), VIRTIO_BLK_S_IOERR) << type;
    EXPECT_EQ(parse_ranges(type, {range(0, 101)}), VIRTIO_BLK_S_IOERR) << type;  // above the maximum
    EXPECT_EQ(parse_ranges(type, {range(0, UINT32_MAX)}), VIRTIO_BLK_S_IOERR) << type;
    EXPECT_EQ(parse_ranges(type, {range(950, 100)}), VIRTIO_BLK_S_IOERR) << type;  // beyond the capacity
    EXPECT_EQ(parse_ranges(type, {range(UINT64_MAX, 1)}), VIRTIO_BLK_S_IOERR) << type;
    EXPECT_EQ(parse_ranges(type, {range(0, 1, 2)}), VIRTIO_BLK_S_UNSUPP) << type;  // unknown flag
    EXPECT_EQ(parse_ranges(type, {range(0, 1), range(0, 1, 0x80000000)}), VIRTIO_BLK_S_UNSUPP) << type;
    const WireRange one = range(0, 1);
    EXPECT_EQ(parse_ranges(type, {one, one, one, one, one, one, one, one}), std::nullopt) << type;
    EXPECT_EQ(parse_ranges(type, {one, one, one, one, one, one, one, one, one}), VIRTIO_BLK_S_UNSUPP) << type;
    out_.resize(16 + 15);
    EXPECT_EQ(parse(1), VIRTIO_BLK_S_IOERR) << type;
    EXPECT_EQ(parse_ranges(type, {range(0, 0)}), VIRTIO_BLK_S_OK) << type;
  }
  EXPECT_EQ(parse_ranges(VIRTIO_BLK_T_DISCARD, {range(0, 1, 1)}),
            VIRTIO_BLK_S_UNSUPP);  // unmap is for zeroes
  EXPECT_EQ(parse_ranges(VIRTIO_BLK_T_WRITE_ZEROES, {range(0, 1, 1)}), std::nullopt);
  EXPECT_TRUE(request_.io.may_unmap);
}

TEST_F(BlkRequest, ranges_are_taken_one_after_the_other_and_empty_ones_skipped) {
  ASSERT_EQ(parse_ranges(VIRTIO_BLK_T_DISCARD, {range(1, 2), range(5, 0), range(10, 20)}), std::nullopt);
  EXPECT_EQ(request_.io.offset, 512U);
  EXPECT_EQ(request_.io.length, 1024U);
  ASSERT_TRUE(request_.advance());
  EXPECT_EQ(request_.io.offset, 5120U);
  EXPECT_EQ(request_.io.length, 20U * 512);
  EXPECT_FALSE(request_.advance());
}

TEST_F(BlkRequest, H248_unknown_types_and_H256_zoned_requests_are_not_supported) {
  for (const uint32_t type : {2U, 3U, 5U, 9U, 15U, 16U, 18U, 26U, 0x80000000U, 0xffffffffU}) {
    EXPECT_EQ(parse_transfer(type, 0, 512), VIRTIO_BLK_S_UNSUPP) << type;
  }
}

TEST_F(BlkRequest, what_was_not_negotiated_is_not_supported) {
  disk_.features = 0;
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(parse_ranges(type, {range(0, 1)}), VIRTIO_BLK_S_UNSUPP) << type;
  }
}

TEST_F(BlkRequest, the_identity_fills_what_there_is_room_for) {
  out_.clear();
  readable(header(VIRTIO_BLK_T_GET_ID, 0));
  ASSERT_EQ(parse(21), VIRTIO_BLK_S_OK);
  EXPECT_EQ(std::memcmp(in_.data(), disk_.serial.data(), 20), 0);
  EXPECT_EQ(request_.written, 20U);
  ASSERT_EQ(parse(5), VIRTIO_BLK_S_OK);
  EXPECT_EQ(std::memcmp(in_.data(), "seri", 4), 0);
  EXPECT_EQ(in_[4], std::byte{0xaa});
  EXPECT_EQ(request_.written, 4U);
}

TEST_F(BlkRequest, a_legacy_driver_of_the_other_byte_order_is_understood) {
  disk_.big_endian = true;
  WireHeader wire;
  wire.type = std::byteswap(uint32_t{VIRTIO_BLK_T_IN});
  wire.sector = std::byteswap(uint64_t{3});
  out_.clear();
  readable(wire);
  ASSERT_EQ(parse(513), std::nullopt);
  EXPECT_EQ(request_.io.operation, Operation::read);
  EXPECT_EQ(request_.io.offset, 3U * 512);
}

TEST_F(BlkRequest, writes_are_durable_when_the_cache_is_off) {
  ASSERT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 0, 512), std::nullopt);
  EXPECT_FALSE(request_.io.durable);
  disk_.write_through = true;
  ASSERT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 0, 512), std::nullopt);
  EXPECT_TRUE(request_.io.durable);
}

TEST_F(BlkRequest, a_chain_without_a_writable_byte_has_no_status) {
  ring::Slot slot{};
  ring::Chain chain(slot);
  EXPECT_FALSE(has_status(chain));
  (void)chain.end();
}

TEST(BlkStatus, errors_of_the_backing_become_statuses) {
  EXPECT_EQ(status_of(0), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status_of(-EOPNOTSUPP), VIRTIO_BLK_S_UNSUPP);
  for (const int error : {-EIO, -ENOSPC, -EINVAL, -EROFS, -EFAULT})
    EXPECT_EQ(status_of(error), VIRTIO_BLK_S_IOERR);
}

}  // namespace
}  // namespace ringway::blk
