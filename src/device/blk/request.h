// Request: what a driver asks of a disk, from its chain to its status. VIRTIO "Block Device / Device
// Operation". Thread rule: belongs to the worker of its queue.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "ringway/device/backing/backing.h"
#include "ringway/ring/chain.h"

namespace ringway::blk {

inline constexpr uint32_t max_ranges = 8;  // of one DISCARD, WRITE_ZEROES or SECURE_ERASE request

// What a request is checked against: the disk as it is now, and as its driver has negotiated it.
struct Disk {
  uint64_t capacity = 0;  // sectors
  uint64_t features = 0;
  bool read_only = false;
  bool write_through = false;  // writes are stable before they complete
  bool big_endian = false;     // a legacy driver of the other byte order
  backing::Geometry geometry;
  std::array<char, 20> serial{};
};

struct Request {
  struct Range {
    uint64_t offset = 0;  // bytes
    uint64_t length = 0;  // bytes
    bool unmap = false;
  };

  struct Io : backing::Request {
    blk::Request* request = nullptr;  // that it is part of
    void* queue = nullptr;            // for io.done
  };

  ring::Chain chain;
  ring::ByteSlot status;
  Io io;
  uint32_t written = 0;  // bytes of data in the writable part, if the request succeeds
  uint32_t range_count = 0;
  uint32_t next_range = 0;
  std::array<Range, max_ranges> ranges;

  // Takes the chain and reads what it asks for. Nothing: `io` is ready to submit. A value: the status that
  // ends it, one of VIRTIO_BLK_S_*. There must be room for a status: has_status(chain).
  std::optional<uint8_t> parse(ring::Chain from, const Disk& disk);
  // After a range has succeeded: true if `io` is ready to submit for the next one.
  bool advance();

 private:
  std::optional<uint8_t> parse_transfer(bool write, uint64_t sector, const ring::Cursor& data,
                                        const Disk& disk);
  std::optional<uint8_t> parse_id(ring::Writer& to, const Disk& disk);
  std::optional<uint8_t> parse_ranges(uint32_t type, ring::Reader& from, const Disk& disk);
};

[[nodiscard]] bool has_status(const ring::Chain& chain);

// VIRTIO_BLK_S_* for what came of a backing's request (0 or a negative errno).
[[nodiscard]] uint8_t status_of(int result);

}  // namespace ringway::blk
