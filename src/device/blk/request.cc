#include "ringway/device/blk/request.h"

#include <linux/virtio_blk.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace ringway::blk {
namespace {

using backing::Operation;
using backing::sector_size;

struct WireHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(WireHeader) == 16);

struct WireRange {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(WireRange) == 16);

template <class T>
T from_driver(T value, const Disk& disk) {
  return disk.big_endian == (std::endian::native == std::endian::big) ? value : std::byteswap(value);
}

bool negotiated(const Disk& disk, unsigned feature) { return (disk.features >> feature & 1) != 0; }

bool inside(const Disk& disk, uint64_t sector, uint64_t sectors) {
  return sectors <= disk.capacity && sector <= disk.capacity - sectors;
}

// How the three requests that name ranges differ.
struct RangeRule {
  unsigned feature;
  Operation operation;
  uint64_t max_bytes;  // of one range
  bool may_unmap;      // the unmap flag is allowed
};

RangeRule range_rule(uint32_t type, const Disk& disk) {
  switch (type) {
    case VIRTIO_BLK_T_DISCARD:
      return {VIRTIO_BLK_F_DISCARD, Operation::discard, disk.geometry.max_discard, false};
    case VIRTIO_BLK_T_WRITE_ZEROES:
      return {VIRTIO_BLK_F_WRITE_ZEROES, Operation::write_zeroes, disk.geometry.max_write_zeroes, true};
    default:
      return {VIRTIO_BLK_F_SECURE_ERASE, Operation::secure_erase, disk.geometry.max_secure_erase, false};
  }
}

}  // namespace

bool has_status(const ring::Chain& chain) { return chain.writer().remaining() > 0; }

uint8_t status_of(int result) {
  if (result == 0) return VIRTIO_BLK_S_OK;
  return result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

std::optional<uint8_t> Request::parse(ring::Chain from, const Disk& disk) {
  chain = std::move(from);
  written = range_count = next_range = 0;
  ring::Reader reader = chain.reader();
  ring::Writer writer = chain.writer();
  status = writer.take_last_byte();
  WireHeader header;
  if (!reader.read(header)) return VIRTIO_BLK_S_IOERR;
  const uint32_t type = from_driver(header.type, disk);
  const uint64_t sector = from_driver(header.sector, disk);
  switch (type) {
    case VIRTIO_BLK_T_IN:
      return parse_transfer(false, sector, writer, disk);
    case VIRTIO_BLK_T_OUT:
      return parse_transfer(true, sector, reader, disk);
    case VIRTIO_BLK_T_FLUSH:
      io.operation = Operation::flush;
      return std::nullopt;
    case VIRTIO_BLK_T_GET_ID:
      return parse_id(writer, disk);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
    case VIRTIO_BLK_T_SECURE_ERASE:
      return parse_ranges(type, reader, disk);
    default:
      return VIRTIO_BLK_S_UNSUPP;
  }
}

std::optional<uint8_t> Request::parse_transfer(bool write, uint64_t sector, const ring::Cursor& data,
                                               const Disk& disk) {
  if (write && disk.read_only) return VIRTIO_BLK_S_IOERR;
  const uint64_t length = data.remaining();
  if (length % sector_size != 0 || !inside(disk, sector, length / sector_size)) return VIRTIO_BLK_S_IOERR;
  if (length == 0) return VIRTIO_BLK_S_OK;
  io.operation = write ? Operation::write : Operation::read;
  io.durable = write && disk.write_through;
  io.pieces = data.pieces();
  io.offset = sector * sector_size;
  io.length = length;
  written = write ? 0 : static_cast<uint32_t>(length);
  return std::nullopt;
}

std::optional<uint8_t> Request::parse_id(ring::Writer& to, const Disk& disk) {
  const auto id = std::as_bytes(std::span(disk.serial));
  const size_t length = std::min<uint64_t>(to.remaining(), id.size());
  to.write(id.first(length));
  written = static_cast<uint32_t>(length);
  return VIRTIO_BLK_S_OK;
}

std::optional<uint8_t> Request::parse_ranges(uint32_t type, ring::Reader& from, const Disk& disk) {
  const RangeRule rule = range_rule(type, disk);
  if (!negotiated(disk, rule.feature)) return VIRTIO_BLK_S_UNSUPP;
  if (disk.read_only) return VIRTIO_BLK_S_IOERR;
  const uint64_t count = from.remaining() / sizeof(WireRange);
  if (count == 0 || from.remaining() % sizeof(WireRange) != 0) return VIRTIO_BLK_S_IOERR;
  if (count > max_ranges) return VIRTIO_BLK_S_UNSUPP;
  WireRange wire;
  while (from.read(wire)) {
    const uint64_t sector = from_driver(wire.sector, disk);
    const uint32_t sectors = from_driver(wire.sectors, disk);
    const uint32_t flags = from_driver(wire.flags, disk);
    const uint32_t allowed = rule.may_unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    if ((flags & ~allowed) != 0) return VIRTIO_BLK_S_UNSUPP;
    if (uint64_t{sectors} * sector_size > rule.max_bytes || !inside(disk, sector, sectors))
      return VIRTIO_BLK_S_IOERR;
    if (sectors == 0) continue;
    ranges[range_count++] = {
        .offset = sector * sector_size, .length = uint64_t{sectors} * sector_size, .unmap = flags != 0};
  }
  io.operation = rule.operation;
  io.durable = disk.write_through;
  if (!advance()) return VIRTIO_BLK_S_OK;
  return std::nullopt;
}

bool Request::advance() {
  if (next_range == range_count) return false;
  const Range& range = ranges[next_range++];
  io.offset = range.offset;
  io.length = range.length;
  io.may_unmap = range.unmap;
  return true;
}

}  // namespace ringway::blk
