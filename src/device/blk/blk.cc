#include "ringway/device/blk/blk.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "ringway/base/endian.h"

namespace ringway::blk {
namespace {

using backing::sector_size;

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

constexpr uint32_t segment_limit = 126;  // with header and status a chain fits into the usual ring of 128
constexpr uint32_t segment_bytes = 4U << 20U;  // of one descriptor

// What another back-end must know, in bytes that go there.
struct State {
  le32 version;
  le32 writeback;
  le64 capacity;  // bytes
};
static_assert(sizeof(State) == 16);
constexpr uint32_t state_version = 1;

uint32_t in_sectors(uint64_t bytes) {
  return static_cast<uint32_t>(std::min<uint64_t>(bytes / sector_size, UINT32_MAX));
}

}  // namespace

// One queue at work.
class Blk::RunningQueue final : public engine::Queue {
 public:
  RunningQueue(Blk& blk, engine::QueueLoop& loop)
      : blk_(blk),
        loop_(loop),
        lane_(blk.backing_->open_lane(loop.worker())),
        disk_(blk.disk(loop)),
        requests_(std::make_unique<Request[]>(loop.ring_size())) {
    for (uint32_t i = 0; i < loop.ring_size(); ++i) {
      Request& request = requests_[i];
      request.io.request = &request;
      request.io.queue = this;
      request.io.done = io_done;
    }
  }

  [[nodiscard]] bool takes_any_order() const override { return true; }

  void process(ring::Chain chain) override {
    if (Request* const request = take(std::move(chain))) submit(*request);
  }

  // The lane hears of each request while it has the one before.
  bool process_batch(std::span<ring::Chain> chains) override {
    Request* before = nullptr;
    for (ring::Chain& chain : chains) {
      Request* const request = take(std::move(chain));
      if (request != nullptr) lane_->expect(request->io);
      if (before != nullptr) submit(*before);
      before = request;
    }
    if (before != nullptr) submit(*before);
    return true;
  }

 private:
  // Stable before complete, if the driver has no FLUSH to ask for it, or has switched the cache off.
  [[nodiscard]] bool write_through() const {
    return (disk_.features & bit(VIRTIO_BLK_F_FLUSH)) == 0 ||
           !blk_.writeback_.load(std::memory_order_relaxed);
  }

  // None: it has ended, without anything to submit.
  Request* take(ring::Chain chain) {
    if (!has_status(chain)) {
      loop_.complete(std::move(chain), 0);
      return nullptr;
    }
    disk_.capacity = blk_.backing_->capacity() / sector_size;
    disk_.write_through = write_through();
    Request& request = requests_[chain.index()];
    const auto status = request.parse(std::move(chain), disk_);
    if (!status) return &request;
    finish(request, *status);
    return nullptr;
  }

  void submit(Request& request) {
    while (const auto result = lane_->submit(request.io)) {
      if (!goes_on(request, *result)) return;
    }
  }

  // After one step has ended: true if `io` is ready for the next, else the request is finished.
  bool goes_on(Request& request, int result) {
    if (result != 0) {
      finish(request, status_of(result));
      return false;
    }
    // The cache was switched off while this write was under way.
    if (request.io.operation == backing::Operation::write && !request.io.durable && write_through()) {
      request.io.operation = backing::Operation::flush;
      return true;
    }
    if (request.advance()) return true;
    finish(request, VIRTIO_BLK_S_OK);
    return false;
  }

  static void io_done(backing::Request& io, int result) {
    auto& own = static_cast<Request::Io&>(io);
    auto& queue = *static_cast<RunningQueue*>(own.queue);
    if (queue.loop_.is_suspended()) return queue.loop_.complete(std::move(own.request->chain), 0);
    if (queue.goes_on(*own.request, result)) queue.submit(*own.request);
  }

  void finish(Request& request, uint8_t status) {
    request.status.write(status);
    const uint32_t data = status == VIRTIO_BLK_S_OK ? request.written : 0;
    loop_.complete(std::move(request.chain), data + 1);
  }

  Blk& blk_;
  engine::QueueLoop& loop_;
  const std::unique_ptr<backing::Lane> lane_;
  Disk disk_;
  const std::unique_ptr<Request[]> requests_;  // by Chain::index()
};

Blk::Blk(std::unique_ptr<backing::Backing> backing, const Options& options)
    : backing_(std::move(backing)), options_(options) {}

uint32_t Blk::device_id() const { return VIRTIO_ID_BLOCK; }

uint64_t Blk::features() const {
  const backing::Geometry& geometry = backing_->geometry();
  uint64_t bits = bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE) |
                  bit(VIRTIO_BLK_F_TOPOLOGY) | bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_CONFIG_WCE) |
                  bit(VIRTIO_BLK_F_MQ);
  if (backing_->read_only()) return bits | bit(VIRTIO_BLK_F_RO);
  if (geometry.max_discard > 0) bits |= bit(VIRTIO_BLK_F_DISCARD);
  if (geometry.max_write_zeroes > 0) bits |= bit(VIRTIO_BLK_F_WRITE_ZEROES);
  if (geometry.max_secure_erase > 0) bits |= bit(VIRTIO_BLK_F_SECURE_ERASE);
  return bits;
}

void Blk::set_features(uint64_t features) { features_ = features; }

Config Blk::config() const {
  const backing::Geometry& geometry = backing_->geometry();
  Config config;
  config.capacity = backing_->capacity() / sector_size;
  config.size_max = segment_bytes;
  config.seg_max = segment_limit;
  config.blk_size = geometry.logical_block_size;
  const uint32_t blocks = std::max(1U, geometry.physical_block_size / geometry.logical_block_size);
  config.physical_block_exp = static_cast<uint8_t>(std::bit_width(blocks) - 1);
  config.min_io_size =
      static_cast<uint16_t>(std::min(geometry.minimum_io_size / geometry.logical_block_size, 0xffffU));
  config.opt_io_size = geometry.optimal_io_size / geometry.logical_block_size;
  config.writeback = writeback_ ? 1 : 0;
  config.num_queues = options_.queues;
  if (geometry.max_discard > 0) {
    config.max_discard_sectors = in_sectors(geometry.max_discard);
    config.max_discard_seg = max_ranges;
    config.discard_sector_alignment = in_sectors(geometry.discard_granularity);
  }
  if (geometry.max_write_zeroes > 0) {
    config.max_write_zeroes_sectors = in_sectors(geometry.max_write_zeroes);
    config.max_write_zeroes_seg = max_ranges;
    config.write_zeroes_may_unmap = geometry.unmapping_zeroes ? 1 : 0;
  }
  if (geometry.max_secure_erase > 0) {
    config.max_secure_erase_sectors = in_sectors(geometry.max_secure_erase);
    config.max_secure_erase_seg = max_ranges;
    config.secure_erase_sector_alignment = in_sectors(geometry.logical_block_size);
  }
  return config;
}

void Blk::read_config(uint32_t offset, std::span<std::byte> to) const {
  const Config current = config();
  std::ranges::copy(std::as_bytes(std::span(&current, 1)).subspan(offset, to.size()), to.begin());
}

Result<> Blk::write_config(uint32_t offset, std::span<const std::byte> from, bool restore) {
  const bool only_writeback = offset == offsetof(Config, writeback) && from.size() == 1;
  if (!only_writeback && !restore) return refused("only the cache mode may be written", offset);
  const uint32_t at = offsetof(Config, writeback);
  if (offset > at || offset + from.size() <= at) return {};  // a restored field that this device knows better
  const bool may_write = restore || (features_ & bit(VIRTIO_BLK_F_CONFIG_WCE)) != 0;
  if (!may_write) return refused("the cache mode was not negotiated");
  return set_writeback(from[at - offset] != std::byte{0});
}

Result<> Blk::set_writeback(bool writeback) {
  const bool before = writeback_.exchange(writeback);
  // From here on writes are stable when they complete; those before must become so, for nobody will ask for a
  // flush.
  if (before && !writeback) return backing_->flush_now();
  return {};
}

Disk Blk::disk(const engine::QueueLoop& loop) const {
  Disk disk{.capacity = backing_->capacity() / sector_size,
            .features = loop.features(),
            .read_only = backing_->read_only(),
            .big_endian = loop.big_endian(),
            .geometry = backing_->geometry()};
  std::memcpy(disk.serial.data(), options_.serial.data(),
              std::min(options_.serial.size(), disk.serial.size()));
  return disk;
}

std::unique_ptr<engine::Queue> Blk::start_queue(engine::QueueLoop& loop) {
  return std::make_unique<RunningQueue>(*this, loop);
}

void Blk::reset() { writeback_ = true; }

std::vector<std::byte> Blk::save_state() const {
  State state;
  state.version = state_version;
  state.writeback = writeback_ ? 1 : 0;
  state.capacity = backing_->capacity();
  const auto bytes = std::as_bytes(std::span(&state, 1));
  return {bytes.begin(), bytes.end()};
}

// The disk must be the same one, which may have grown since the source looked at it.
Result<> Blk::load_state(std::span<const std::byte> bytes) {
  State state;
  if (bytes.size() != sizeof state) return refused("the state of a disk has another size", bytes.size());
  std::memcpy(&state, bytes.data(), sizeof state);
  if (state.version != state_version)
    return refused("the state of a disk is of another version", state.version);
  if (state.writeback > 1) return refused("the state of a disk has no such cache mode", state.writeback);
  if (state.capacity > backing_->capacity()) return refused("the disk was larger elsewhere", state.capacity);
  return set_writeback(state.writeback != 0);
}

Result<> Blk::refresh() {
  if (TRY(backing_->refresh())) config_changed();
  return {};
}

}  // namespace ringway::blk
