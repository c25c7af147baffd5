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
using vhost::call;

constexpr uint32_t least_ring = 128;  // entries; what drivers of guests commonly have

// Features that this driver can live with; those of rings are added by the options.
constexpr uint64_t wanted_features =
    bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_RO) |
    bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_MQ) | bit(VIRTIO_BLK_F_DISCARD) |
    bit(VIRTIO_BLK_F_WRITE_ZEROES) | bit(VIRTIO_BLK_F_SECURE_ERASE);

}  // namespace

std::expected<std::unique_ptr<BlkFrontEnd>, std::string> BlkFrontEnd::open(
    const BlkFrontEndOptions& options) {
  auto peer = reach(options.socket);
  if (!peer) return std::unexpected(std::move(peer).error());
  std::unique_ptr<BlkFrontEnd> self(new BlkFrontEnd(options));
  self->peer_ = *std::move(peer);
  Result<> done = self->connect();
  if (done) done = self->negotiate();
  if (done) done = self->share_memory();
  for (uint16_t index = 0; done && index < options.queues; ++index) done = self->start_queue(index);
  if (!done) return std::unexpected(fmt::format("{}: {}", options.socket, done.error().to_string()));
  return self;
}

Result<> BlkFrontEnd::connect() {
  connection_ = TRY(user::Connection::adopt(
      std::move(peer_.fd),
      {.name = options_.socket, .stop = nullptr, .message_time_out = options_.patience, .observer = {}}));
  device_ = std::make_unique<user::RemoteDevice>(connection_, options_.patience);
  return {};
}

Result<> BlkFrontEnd::negotiate() {
  const uint64_t offered = TRY(call(*device_, vhost::GetFeatures{}));
  const vhost::Capabilities can = TRY(call(*device_, vhost::GetProtocolFeatures{}));
  constexpr uint64_t needed = bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG);
  if ((can.bits & needed) == 0)
    return refused("the back-end cannot tell its configuration: it is not a disk");
  const uint64_t queues_known = can.bits & bit(vhost::VHOST_USER_PROTOCOL_F_MQ);
  TRY(call(*device_, vhost::SetProtocolFeatures{{.bits = needed | queues_known}}));
  const uint64_t queues = queues_known != 0 ? TRY(call(*device_, vhost::GetQueueNum{})) : 1;
  TRY(call(*device_, vhost::SetOwner{}));
  const uint64_t features = TRY(choose_features(offered));
  disk_ = TRY(read_disk(features));
  if (options_.queues > std::min<uint64_t>(queues, disk_.queues)) {
    return refused("the back-end has fewer queues than asked for", std::min<uint64_t>(queues, disk_.queues));
  }
  TRY(call(*device_, vhost::SetFeatures{.features = features | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES)}));
  format_ = ring::Format::of(features, false);
  return {};
}

Result<uint64_t> BlkFrontEnd::choose_features(uint64_t offered) {
  if (options_.packed && (offered & bit(VIRTIO_F_RING_PACKED)) == 0)
    return refused("the back-end has no packed rings");
  if (options_.in_order && (offered & bit(VIRTIO_F_IN_ORDER)) == 0)
    return refused("the back-end is not in order");
  uint64_t wanted = wanted_features;
  if (options_.packed) wanted |= bit(VIRTIO_F_RING_PACKED);
  if (options_.in_order) wanted |= bit(VIRTIO_F_IN_ORDER);
  if (options_.indirect) wanted |= bit(VIRTIO_RING_F_INDIRECT_DESC);
  if (options_.event_idx) wanted |= bit(VIRTIO_RING_F_EVENT_IDX);
  return offered & wanted;
}

Result<BlkDisk> BlkFrontEnd::read_disk(uint64_t features) {
  const uint32_t bytes = blk_config_bytes(features);
  const vhost::ConfigBytes config = TRY(call(*device_, vhost::GetConfig{.offset = 0, .size = bytes}));
  return BlkDisk::from(features, config.bytes);
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
  memory_ = TRY(GuestMemory::make(options_.queues * queue.memory_bytes(), options_.huge_pages));
  for (uint16_t index = 0; index < options_.queues; ++index) {
    queues_.emplace_back().driver = TRY(BlkDriver::make(queue, *memory_));
  }
  vhost::SetMemTable table;
  table.regions.push_back({.layout = memory_->layout(), .fd = TRY(memory_->file())});
  TRY(call(*device_, std::move(table)));
  return {};
}

Result<> BlkFrontEnd::start_queue(uint16_t index) {
  Queue& queue = queues_[index];
  BlkDriver& driver = *queue.driver;
  const memory::RegionLayout layout = memory_->layout();
  const auto user_address = [&](memory::GuestAddress guest) {
    return layout.front_end.value + (guest.value - layout.guest.value);
  };
  UniqueFd kick = TRY(make_eventfd());
  UniqueFd called = TRY(make_eventfd());
  UniqueFd err = TRY(make_eventfd());
  driver.set_kick(TRY(Notifier::adopt(TRY(kick.duplicate()))));
  queue.call = TRY(Signal::adopt(TRY(called.duplicate())));
  queue.err = TRY(Signal::adopt(TRY(err.duplicate())));

  TRY(call(*device_, vhost::SetVringNum{.ring = index, .size = options_.ring_size}));
  TRY(call(*device_, vhost::SetVringBase{.ring = index, .base = ring::RingBase{}.to_wire(format_.packed)}));
  TRY(call(*device_, vhost::SetVringAddr{.ring = index,
                                         .desc = user_address(driver.addresses().desc),
                                         .used = user_address(driver.addresses().device),
                                         .avail = user_address(driver.addresses().driver)}));
  TRY(call(*device_, vhost::SetVringCall{.ring = index, .fd = std::move(called)}));
  TRY(call(*device_, vhost::SetVringErr{.ring = index, .fd = std::move(err)}));
  TRY(call(*device_, vhost::SetVringKick{.ring = index, .fd = std::move(kick)}));
  TRY(call(*device_, vhost::SetVringEnable{.ring = index, .enable = 1}));
  return {};
}

std::optional<std::string> BlkFrontEnd::trouble() const {
  if (connection_->hung_up()) return "the back-end has closed the connection";
  for (size_t index = 0; index < queues_.size(); ++index) {
    if (queues_[index].err.take()) return fmt::format("the back-end says that ring {} is broken", index);
  }
  return std::nullopt;
}

std::expected<void, std::string> BlkFrontEnd::stop() {
  for (uint32_t index = 0; index < queues_.size(); ++index) {
    const auto stopped = call(*device_, vhost::GetVringBase{.ring = index});
    if (!stopped) return std::unexpected(fmt::format("{}: {}", options_.socket, stopped.error().to_string()));
  }
  return {};
}

}  // namespace ringway::tools
