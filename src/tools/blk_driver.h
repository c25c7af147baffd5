// BlkDriver: one queue of a disk, driver's side: requests are built in shared memory, given to the device,
// and come back. Owned by one thread. VIRTIO "Block Device / Device Operation".
//
// A request lives in a slot: free -> acquire() -> ours -> a start function -> the device's -> take() -> ours
// -> start again, or release(). Each slot has a buffer for its data. Nothing is allocated, and no system call
// is made but a kick that the device asked for.
//
// The device is hostile: what it says is read once and judged (ring/driver.h, BlkDone). Data that it has
// written must be copied out of the buffer before it is trusted to stay the same.
#pragma once

#include <linux/virtio_blk.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/base/result.h"
#include "ringway/tools/blk_disk.h"
#include "ringway/tools/driver_ring.h"
#include "ringway/tools/guest_memory.h"

namespace ringway::tools {

// A request that came back.
struct BlkDone {
  uint16_t slot = 0;
  uint8_t status = 0;       // VIRTIO_BLK_S_*, or whatever the device wrote; no_status: nothing
  bool overlong = false;    // the device claims to have written more than the request has room for
  bool short_used = false;  // it claims fewer bytes than a successful request of this kind has written
};

class BlkDriver {
 public:
  static constexpr uint8_t no_status = 0xff;

  struct Options {
    uint32_t ring_size = 0;  // entries
    ring::Format format;
    uint16_t slots = 0;
    uint32_t data_bytes = 0;   // buffer of each slot; at least 512
    uint32_t piece_bytes = 0;  // data is cut into pieces of at most so many bytes; 0: it is not cut

    // Ring entries that a request of `data_bytes` takes without an indirect table.
    [[nodiscard]] uint32_t descriptors() const;
    // Guest memory that all of it takes.
    [[nodiscard]] uint64_t memory_bytes() const;
  };

  // Refuses a ring that has no room for one request.
  static Result<BlkDriver> make(const Options& options, GuestMemory& memory);

  [[nodiscard]] const RingAddresses& addresses() const { return addresses_; }
  // Where a back-end begins that comes after one that has died: for split rings at the used index, for packed
  // ones where the first began, since nothing in the ring tells. Any thread.
  [[nodiscard]] ring::RingBase restart_base() const;
  // Without one the device is not kicked.
  void set_kick(Notifier kick) { kick_ = std::move(kick); }

  [[nodiscard]] uint16_t slots() const { return options_.slots; }
  // A slot of our own; nothing if all are in use.
  std::optional<uint16_t> acquire() {
    if (free_.empty()) return std::nullopt;
    const uint16_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void release(uint16_t slot) { free_.push_back(slot); }
  [[nodiscard]] std::span<std::byte> data(uint16_t slot) const {
    return data_.bytes.subspan(slot * data_stride_, options_.data_bytes);
  }

  // Give a slot of ours to the device, which sees it at publish(). `bytes` are of the slot's buffer. False,
  // and the slot stays ours: the ring is full.
  [[nodiscard]] bool read(uint16_t slot, uint64_t sector, uint32_t bytes) {
    return start(slot, {.type = VIRTIO_BLK_T_IN, .sector = sector, .writable = bytes});
  }
  [[nodiscard]] bool write(uint16_t slot, uint64_t sector, uint32_t bytes) {
    return start(slot, {.type = VIRTIO_BLK_T_OUT, .sector = sector, .readable = bytes});
  }
  [[nodiscard]] bool flush(uint16_t slot) { return start(slot, {.type = VIRTIO_BLK_T_FLUSH}); }
  [[nodiscard]] bool get_id(uint16_t slot) {
    return start(slot, {.type = VIRTIO_BLK_T_GET_ID, .writable = VIRTIO_BLK_ID_BYTES});
  }
  struct Range {
    uint64_t sector = 0;
    uint32_t sectors = 0;
    bool unmap = false;  // write_zeroes only
  };
  [[nodiscard]] bool discard(uint16_t slot, std::span<const Range> ranges) {
    return start_ranges(slot, VIRTIO_BLK_T_DISCARD, ranges);
  }
  [[nodiscard]] bool write_zeroes(uint16_t slot, std::span<const Range> ranges) {
    return start_ranges(slot, VIRTIO_BLK_T_WRITE_ZEROES, ranges);
  }
  [[nodiscard]] bool secure_erase(uint16_t slot, std::span<const Range> ranges) {
    return start_ranges(slot, VIRTIO_BLK_T_SECURE_ERASE, ranges);
  }
  // Any request, also one that no device knows.
  struct Command {
    uint32_t type = 0;
    uint64_t sector = 0;
    uint32_t readable = 0;  // bytes of the slot's buffer, after the header; at most one of the two is not 0
    uint32_t writable = 0;
  };
  [[nodiscard]] bool start(uint16_t slot, const Command& command);

  // Shows what was started, and kicks the device if it wants that.
  void publish();
  // The next request that came back. An error: the device broke the ring, for good.
  Result<std::optional<BlkDone>> take();
  void disable_calls();
  // Before sleeping; true: something has come back already.
  [[nodiscard]] bool enable_calls();

  [[nodiscard]] uint32_t in_flight() const;
  [[nodiscard]] uint64_t kicks() const { return kicks_; }

 private:
  BlkDriver(const Options& options, DriverRing ring);
  bool start_ranges(uint16_t slot, uint32_t type, std::span<const Range> ranges);
  void push_pieces(uint16_t slot, uint32_t bytes);
  // Headers are read by the device and statuses written by it, so they lie apart; and close together, so that
  // a batch of requests moves few cache lines between the two CPUs.
  [[nodiscard]] std::byte* header(uint16_t slot) const {
    return headers_.bytes.data() + slot * header_stride;
  }
  [[nodiscard]] std::byte* status(uint16_t slot) const {
    return statuses_.bytes.data() + slot * status_stride;
  }
  static constexpr size_t header_stride = sizeof(virtio_blk_outhdr);
  static constexpr size_t status_stride = 4;

  Options options_;
  ring::Driver driver_;
  RingAddresses addresses_;
  const std::byte* device_area_ = nullptr;
  Notifier kick_;
  GuestBlock headers_;
  GuestBlock statuses_;
  GuestBlock data_;
  size_t data_stride_ = 0;
  std::vector<ring::Buffer> buffers_;  // of the request that is being started
  std::vector<uint16_t> slot_of_token_;
  std::vector<uint64_t> least_written_;  // by slot: what a success has written, with its status
  std::vector<uint16_t> free_;
  uint64_t kicks_ = 0;
};

}  // namespace ringway::tools
