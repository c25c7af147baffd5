#include "ringway/tools/blk_front_end.h"

#include <fmt/format.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <string>
#include <utility>

#include "ringway/memory/dirty_log.h"
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
  if (done) done = self->make_queues();
  if (done) done = self->share_memory();
  if (done) done = self->prepare_inflight();
  for (uint16_t index = 0; done && index < options.queues; ++index) done = self->start_queue(index, {});
  // One that dies while its queues start has a successor, if the caller cares: reconnect().
  const bool may_go_on = !done && done.error().fault == Fault::gone && self->inflight_;
  if (!done && !may_go_on) return std::unexpected(self->front_end_->explain(done.error()));
  return self;
}

std::expected<void, std::string> BlkFrontEnd::reconnect() {
  if (!inflight_) return std::unexpected("the back-end has kept no account of what is in flight");
  if (auto reached = front_end_->reconnect(); !reached) return reached;
  if (auto done = go_on(); !done) return std::unexpected(front_end_->explain(done.error()));
  return {};
}

Result<> BlkFrontEnd::go_on() {
  TRY(negotiate());
  TRY(share_memory());
  assert(inflight_);
  TRY(front_end_->session().use_inflight(*inflight_));
  for (uint16_t index = 0; index < options_.queues; ++index) {
    TRY(start_queue(index, drivers_[index]->restart_base()));
  }
  return {};
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
  if (features_ != 0 && features_ != agreed.features)
    return refused("the back-end has other features than the one before it", agreed.features);
  if (options_.dirty_log && !(agreed.has_feature(VHOST_F_LOG_ALL) &&
                              agreed.has_capability(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD))) {
    return refused("the back-end has no dirty log");
  }
  features_ = agreed.features;
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
  uint64_t capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) | bit(vhost::VHOST_USER_PROTOCOL_F_MQ);
  if (options_.inflight) capabilities |= bit(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
  if (options_.dirty_log) {
    features |= bit(VHOST_F_LOG_ALL);
    capabilities |= bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD);
  }
  return {.features = features, .capabilities = capabilities};
}

Result<> BlkFrontEnd::make_queues() {
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
    BlkDriver& driver = *drivers_.emplace_back(
        std::make_unique<BlkDriver>(TRY(BlkDriver::make(queue, front_end_->memory()))));
    driver.set_kick(TRY(front_end_->add_ring(options_.ring_size, format_, driver.addresses())));
  }
  return {};
}

Result<> BlkFrontEnd::share_memory() {
  TRY(front_end_->share_memory());
  return options_.dirty_log ? share_log() : Result<>();
}

Result<> BlkFrontEnd::share_log() {
  const memory::RegionLayout layout = front_end_->memory().layout();
  const uint64_t bytes = (layout.guest.value + layout.size) / memory::DirtyLog::page_bytes / 8 + 1;
  UniqueFd file(::memfd_create("ringway-log", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return os_failure("cannot create a dirty log");
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return os_failure("cannot size a dirty log");
  log_ = TRY(Mapping::of_file(file.get(), bytes, 0));
  return front_end_->session().log_writes(std::move(file), bytes);
}

uint64_t BlkFrontEnd::dirty_pages() const {
  uint64_t pages = 0;
  for (size_t at = 0; at < log_.size(); ++at) pages += std::popcount(memory::load<uint8_t>(log_.data() + at));
  return pages;
}

Result<> BlkFrontEnd::prepare_inflight() {
  vhost::Session& session = front_end_->session();
  if (!session.agreed().has_capability(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) return {};
  inflight_ = TRY(session.new_inflight(options_.queues, static_cast<uint16_t>(options_.ring_size)));
  return session.use_inflight(*inflight_);
}

Result<> BlkFrontEnd::start_queue(uint16_t index, const ring::RingBase& base) {
  return front_end_->start_ring(index, {.base = base, .logged = options_.dirty_log});
}

}  // namespace ringway::tools
