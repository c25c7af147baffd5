// What a request becomes. Statuses and what reaches the disk: blk_test.cc.
#include "ringway/device/blk/request.h"

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "ringway/base/endian.h"

namespace ringway::blk {
namespace {

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

TEST_F(BlkRequest, H239_a_transfer_takes_its_data_from_where_it_is_however_the_request_is_cut) {
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

TEST_F(BlkRequest, H247_a_range_above_the_announced_maximum_is_an_error) {
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE}) {
    EXPECT_EQ(parse_ranges(type, {range(0, 100)}), std::nullopt) << type;
    EXPECT_EQ(parse_ranges(type, {range(0, 101)}), VIRTIO_BLK_S_IOERR) << type;
  }
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

TEST_F(BlkRequest, the_unmap_flag_of_a_range_is_passed_on) {
  ASSERT_EQ(parse_ranges(VIRTIO_BLK_T_WRITE_ZEROES, {range(0, 1, 1), range(4, 1, 0)}), std::nullopt);
  EXPECT_TRUE(request_.io.may_unmap);
  ASSERT_TRUE(request_.advance());
  EXPECT_FALSE(request_.io.may_unmap);
}

TEST_F(BlkRequest, writes_are_durable_when_the_cache_is_off) {
  ASSERT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 0, 512), std::nullopt);
  EXPECT_FALSE(request_.io.durable);
  disk_.write_through = true;
  ASSERT_EQ(parse_transfer(VIRTIO_BLK_T_OUT, 0, 512), std::nullopt);
  EXPECT_TRUE(request_.io.durable);
}

TEST(BlkStatus, errors_of_the_backing_become_statuses) {
  EXPECT_EQ(status_of(0), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status_of(-EOPNOTSUPP), VIRTIO_BLK_S_UNSUPP);
  for (const int error : {-EIO, -ENOSPC, -EINVAL, -EROFS, -EFAULT})
    EXPECT_EQ(status_of(error), VIRTIO_BLK_S_IOERR);
}

}  // namespace
}  // namespace ringway::blk
