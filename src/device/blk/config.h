// The configuration space of a block device. VIRTIO "Block Device / Device configuration layout". Plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ringway/base/endian.h"

namespace ringway::blk {

struct Config {
  le64 capacity;  // in sectors of 512 bytes
  le32 size_max;
  le32 seg_max;
  le16 cylinders;
  uint8_t heads = 0;
  uint8_t sectors = 0;
  le32 blk_size;
  uint8_t physical_block_exp = 0;
  uint8_t alignment_offset = 0;
  le16 min_io_size;
  le32 opt_io_size;
  uint8_t writeback = 0;  // the only field that a driver may write
  uint8_t unused0 = 0;
  le16 num_queues;
  le32 max_discard_sectors;
  le32 max_discard_seg;
  le32 discard_sector_alignment;
  le32 max_write_zeroes_sectors;
  le32 max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap = 0;
  uint8_t unused1[3] = {};
  le32 max_secure_erase_sectors;
  le32 max_secure_erase_seg;
  le32 secure_erase_sector_alignment;
};
static_assert(sizeof(Config) == 72 && offsetof(Config, writeback) == 32 &&
              offsetof(Config, max_discard_sectors) == 36);

}  // namespace ringway::blk
