// BlkDisk: what a driver knows of a disk from its features and its configuration space. Plain data; any
// thread. VIRTIO "Block Device / Device configuration layout".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ringway/base/result.h"
#include "ringway/device/blk/config.h"

namespace ringway::tools {

// Bytes of the configuration space that a disk with these features must have: up to the last field they speak
// of.
[[nodiscard]] uint32_t blk_config_bytes(uint64_t features);

struct BlkDisk {
  uint64_t features = 0;       // as negotiated
  uint64_t capacity = 0;       // bytes
  uint32_t block_bytes = 512;  // what requests should be aligned to and multiples of
  uint32_t max_piece = 0;      // bytes of one data buffer of a request; 0: no limit
  uint32_t max_pieces = 0;     // data buffers of one request
  uint16_t queues = 1;
  bool read_only = false;
  uint32_t max_discard_sectors = 0;  // of one range; 0: not supported, as below
  uint32_t max_discard_ranges = 0;
  uint32_t max_write_zeroes_sectors = 0;
  uint32_t max_write_zeroes_ranges = 0;

  // Refuses what no driver could work with. `config` may be shorter than the whole space: missing fields are
  // 0.
  static Result<BlkDisk> from(uint64_t features, std::span<const std::byte> config);
};

}  // namespace ringway::tools
