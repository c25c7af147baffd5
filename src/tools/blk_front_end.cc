#include "ringway/tools/blk_front_end.h"

#include <fmt/format.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using vhost::bit;

constexpr uint32_t least_ring = 128;  // entries; what drivers of guests commonly have

// Features that this driver can live with; those of rings are added by the options.
constexpr uint64_t blk_features =
    bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_RO) |
    bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_MQ) | bit(VIRTIO_BLK_F_DISCARD) |
    bit(VIRTIO_BLK_F_WRITE_ZEROES) | bit(VIRTIO_BLK_F_SECURE_ERASE);

}  // namespace

std::expected<std::unique_ptr<BlkFrontEnd>, std::string> BlkFrontEnd::open(
    const BlkFrontEndOptions& options) {
  auto front_end = FrontEnd::connect(options.socket, options.patience);
  if (!front_end) return std::unexpected(std::move(front_end).error());
  std::unique_ptr<BlkFrontEnd> self(new BlkFrontEnd(options));
  self->front_end_ = *std::move(front_end);
  Result<> done = self->negotiate();
  if (done) done = self->share_memory();
  if (done) done = self->start_queues();
  if (!done) return std::unexpected(fmt::format("{}: {}", options.socket, done.error().to_string()));
  return self;
}

Result<> BlkFrontEnd::negotiate() {
  vhost::Session& session = front_end_->session();
  const vhost::Agreement agreed = TRY(session.negotiate(wanted()));
  if (!agreed.has_capability(vhost::VHOST_USER_PROTOCOL_F_CONFIG)) {
    return refused("the back-end cannot tell its configuration: it is not a disk");
  }
  if (options_.packed && !agreed.has_feature(VIRTIO_F_RING_PACKED))
    return refused("the back-end has no packed rings");
  if (options_.in_order && !agreed.has_feature(VIRTIO_F_IN_ORDER))
    return refused("the back-end is not in order");
  format_ = ring::Format::of(agreed.features, false);
  disk_ = TRY(BlkDisk::from(agreed.features, TRY(session.read_config(0, blk_config_bytes(agreed.features)))));
  const uint32_t queues = std::min<uint32_t>(TRY(session.queue_count()), disk_.queues);
  if (options_.queues > queues) return refused("the back-end has fewer queues than asked for", queues);
  return {};
}

vhost::Agreement BlkFrontEnd::wanted() const {
  uint64_t features = blk_features;
  if (options_.packed) features |= bit(VIRTIO_F_RING_PACKED);
  if (options_.in_order) features |= bit(VIRTIO_F_IN_ORDER);
  if (options_.indirect) features |= bit(VIRTIO_RING_F_INDIRECT_DESC);
  if (options_.event_idx) features |= bit(VIRTIO_RING_F_EVENT_IDX);
  return {.features = features,
          .capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) | bit(vhost::VHOST_USER_PROTOCOL_F_MQ)};
}

Result<> BlkFrontEnd::share_memory() {
  BlkDriver::Options queue{.ring_size = options_.ring_size,
                           .format = format_,
                           .slots = options_.depth,
                           .data_bytes = options_.data_bytes,
                           .piece_bytes = disk_.max_piece};
  if (queue.descriptors() - 2 > disk_.max_pieces) {
    return refused("the back-end takes fewer pieces in a request than this block size needs",
                   disk_.max_pieces);
  }
  if (queue.ring_size == 0) {
    const uint32_t entries = options_.depth * (format_.indirect ? 1 : queue.descriptors());
    queue.ring_size = std::clamp(std::bit_ceil(entries), least_ring, ring::max_size);
    options_.ring_size = queue.ring_size;
  }
  TRY(front_end_->make_memory(options_.queues * queue.memory_bytes(), options_.huge_pages));
  for (uint16_t index = 0; index < options_.queues; ++index) {
    drivers_.push_back(std::make_unique<BlkDriver>(TRY(BlkDriver::make(queue, front_end_->memory()))));
  }
  return front_end_->share_memory();
}

Result<> BlkFrontEnd::start_queues() {
  for (const auto& driver : drivers_) {
    driver->set_kick(TRY(front_end_->start_ring(options_.ring_size, format_, driver->addresses())));
  }
  return {};
}

}  // namespace ringway::tools
