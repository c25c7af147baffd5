#include "ringway/tools/blk_disk.h"

#include <linux/virtio_blk.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

constexpr uint64_t sector_bytes = 512;
constexpr uint32_t largest_block = 1 << 20;  // bytes; larger ones are nonsense

// End of the fields of each feature. Without any there is only the capacity.
struct Extent {
  unsigned feature;
  uint32_t end;
};
constexpr Extent extents[] = {
    {VIRTIO_BLK_F_SIZE_MAX, offsetof(blk::Config, seg_max)},
    {VIRTIO_BLK_F_SEG_MAX, offsetof(blk::Config, cylinders)},
    {VIRTIO_BLK_F_GEOMETRY, offsetof(blk::Config, blk_size)},
    {VIRTIO_BLK_F_BLK_SIZE, offsetof(blk::Config, physical_block_exp)},
    {VIRTIO_BLK_F_TOPOLOGY, offsetof(blk::Config, writeback)},
    {VIRTIO_BLK_F_CONFIG_WCE, offsetof(blk::Config, num_queues)},
    {VIRTIO_BLK_F_MQ, offsetof(blk::Config, max_discard_sectors)},
    {VIRTIO_BLK_F_DISCARD, offsetof(blk::Config, max_write_zeroes_sectors)},
    {VIRTIO_BLK_F_WRITE_ZEROES, offsetof(blk::Config, max_secure_erase_sectors)},
    {VIRTIO_BLK_F_SECURE_ERASE, sizeof(blk::Config)},
};

}  // namespace

uint32_t blk_config_bytes(uint64_t features) {
  uint32_t end = offsetof(blk::Config, size_max);
  for (const Extent& extent : extents) {
    if ((features & vhost::bit(extent.feature)) != 0) end = std::max(end, extent.end);
  }
  return end;
}

Result<BlkDisk> BlkDisk::from(uint64_t features, std::span<const std::byte> bytes) {
  const auto has = [&](unsigned feature) { return (features & vhost::bit(feature)) != 0; };
  blk::Config config{};
  if (bytes.size() < sizeof config.capacity)
    return violation("configuration space is too short for a disk", bytes.size());
  std::memcpy(&config, bytes.data(), std::min(bytes.size(), sizeof config));

  BlkDisk disk{.features = features};
  if (__builtin_mul_overflow(uint64_t{config.capacity}, sector_bytes, &disk.capacity)) {
    return violation("capacity does not fit into 64 bits of bytes", config.capacity);
  }
  if (has(VIRTIO_BLK_F_BLK_SIZE)) disk.block_bytes = config.blk_size;
  if (!std::has_single_bit(disk.block_bytes) || disk.block_bytes < sector_bytes ||
      disk.block_bytes > largest_block) {
    return violation("block size is not a power of two from 512 to 1 MiB", disk.block_bytes);
  }
  if (has(VIRTIO_BLK_F_SIZE_MAX)) {
    disk.max_piece = config.size_max;  // 0, as some devices offer it, cannot be meant
    if (disk.max_piece != 0 && disk.max_piece < sector_bytes) {
      return violation("SIZE_MAX allows less than a sector", disk.max_piece);
    }
  }
  // Without SEG_MAX nothing is promised beyond one.
  disk.max_pieces = has(VIRTIO_BLK_F_SEG_MAX) ? std::max(uint32_t{config.seg_max}, 1U) : 1;
  if (has(VIRTIO_BLK_F_MQ)) disk.queues = std::max<uint16_t>(config.num_queues, 1);
  disk.read_only = has(VIRTIO_BLK_F_RO);
  if (has(VIRTIO_BLK_F_DISCARD)) {
    disk.max_discard_sectors = config.max_discard_sectors;
    disk.max_discard_ranges = config.max_discard_seg;
  }
  if (has(VIRTIO_BLK_F_WRITE_ZEROES)) {
    disk.max_write_zeroes_sectors = config.max_write_zeroes_sectors;
    disk.max_write_zeroes_ranges = config.max_write_zeroes_seg;
  }
  return disk;
}

}  // namespace ringway::tools
