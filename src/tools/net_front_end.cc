#include "ringway/tools/net_front_end.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "ringway/tools/bench_watch.h"
#include "ringway/tools/net_frames.h"
#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

constexpr uint32_t mergeable_buffer = 2048;  // bytes
// VIRTIO "Setting Up Receive Buffers": what a driver with segmentation offloads must have room for.
constexpr uint32_t longest_segmented = 65550 + ethernet_bytes;
constexpr uint32_t vlan_tag_bytes = 4;
constexpr uint32_t config_bytes = offsetof(net::Config, speed);  // all that is read

// Leaving it to the device, and taking it over.
constexpr uint64_t host_segments =
    vhost::bit(port::VIRTIO_NET_F_CSUM) | vhost::bit(port::VIRTIO_NET_F_HOST_TSO4);
constexpr uint64_t guest_segments =
    vhost::bit(port::VIRTIO_NET_F_GUEST_CSUM) | vhost::bit(port::VIRTIO_NET_F_GUEST_TSO4);

net::Mac any_mac() {
  const uint64_t number = any_seed();
  net::Mac mac{std::byte{0x02}, std::byte{0x52}, std::byte{0x57}};  // locally administered
  std::memcpy(mac.data() + 3, &number, 3);
  return mac;
}

}  // namespace

std::expected<std::unique_ptr<NetFrontEnd>, std::string> NetFrontEnd::open(
    const NetFrontEndOptions& options) {
  auto front_end = FrontEnd::connect(options.socket, options.patience);
  if (!front_end) return std::unexpected(std::move(front_end).error());
  std::unique_ptr<NetFrontEnd> self(new NetFrontEnd(options));
  self->front_end_ = *std::move(front_end);
  Result<> done = self->negotiate();
  if (done) done = self->share_memory();
  if (done) done = self->start_pairs();
  if (!done) return std::unexpected(self->front_end_->explain(done.error()));
  return self;
}

Result<> NetFrontEnd::negotiate() {
  vhost::Session& session = front_end_->session();
  const vhost::Agreement agreed = TRY(session.negotiate(wanted()));
  if (!agreed.has_feature(VIRTIO_F_VERSION_1)) return refused("the back-end has legacy devices only");
  if (options_.packed && !agreed.has_feature(VIRTIO_F_RING_PACKED))
    return refused("the back-end has no packed rings");
  format_ = ring::Format::of(agreed.features, false);
  options_.mergeable = agreed.has_feature(port::VIRTIO_NET_F_MRG_RXBUF);
  options_.in_order = format_.in_order;
  options_.event_idx = format_.event_idx;
  options_.indirect = format_.indirect;
  options_.own_header = options_.own_header || format_.indirect;
  segments_ = (agreed.features & host_segments) == host_segments;
  takes_segments_ = (agreed.features & guest_segments) == guest_segments;
  if (options_.mtu != 0) TRY(session.set_mtu(options_.mtu));
  TRY(read_config(agreed));
  if (options_.frame_bytes > mtu_ + ethernet_bytes + vlan_tag_bytes && !segments_) {
    return refused("the back-end neither has so large an MTU nor segments frames", options_.frame_bytes);
  }
  if (options_.queues > 1 && !agreed.has_feature(port::VIRTIO_NET_F_MQ))
    return refused("the back-end has one pair of queues");
  // What a back-end says is the number of pairs or of queues; more pairs than either are too many.
  const uint32_t told = TRY(session.queue_count());
  if (options_.queues > told) return refused("the back-end has fewer queues than asked for", told);
  return {};
}

vhost::Agreement NetFrontEnd::wanted() const {
  uint64_t features = vhost::bit(VIRTIO_F_VERSION_1) | vhost::bit(port::VIRTIO_NET_F_MAC) |
                      vhost::bit(port::VIRTIO_NET_F_MTU);
  if (options_.queues > 1) features |= vhost::bit(port::VIRTIO_NET_F_MQ);
  if (options_.frame_bytes > mtu_ + ethernet_bytes + vlan_tag_bytes)
    features |= host_segments | guest_segments;
  if (options_.packed) features |= vhost::bit(VIRTIO_F_RING_PACKED);
  if (options_.mergeable) features |= vhost::bit(port::VIRTIO_NET_F_MRG_RXBUF);
  if (options_.in_order) features |= vhost::bit(VIRTIO_F_IN_ORDER);
  if (options_.indirect) features |= vhost::bit(VIRTIO_RING_F_INDIRECT_DESC);
  if (options_.event_idx) features |= vhost::bit(VIRTIO_RING_F_EVENT_IDX);
  return {.features = features,
          .capabilities = vhost::bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) |
                          vhost::bit(vhost::VHOST_USER_PROTOCOL_F_MQ) |
                          vhost::bit(vhost::VHOST_USER_PROTOCOL_F_MTU)};
}

// Few network back-ends have a configuration space of their own: the front-end knows what was asked for.
Result<> NetFrontEnd::read_config(const vhost::Agreement& agreed) {
  mac_ = any_mac();
  if (!agreed.has_capability(vhost::VHOST_USER_PROTOCOL_F_CONFIG)) return {};
  const auto bytes = TRY(front_end_->session().read_config(0, config_bytes));
  net::Config config;
  std::memcpy(static_cast<void*>(&config), bytes.data(), config_bytes);
  if (agreed.has_feature(port::VIRTIO_NET_F_MAC)) mac_ = config.mac;
  if (agreed.has_feature(port::VIRTIO_NET_F_MTU)) {
    mtu_ = config.mtu;
    if (mtu_ < 68) return violation("the MTU is smaller than an IPv4 packet may be", mtu_);
  }
  return {};
}

Result<> NetFrontEnd::share_memory() {
  if (options_.buffer_bytes == 0) {
    const uint32_t longest =
        takes_segments_ ? longest_segmented : std::max(options_.frame_bytes, uint32_t{1518});
    options_.buffer_bytes = options_.mergeable ? mergeable_buffer : net_header_bytes + longest;
  }
  const NetRingOptions transmit{.ring_size = options_.ring_size,
                                .format = format_,
                                .buffer_bytes = net_header_bytes + options_.frame_bytes,
                                .own_header = options_.own_header};
  NetRingOptions receive = transmit;
  receive.buffer_bytes = options_.buffer_bytes;
  TRY(front_end_->make_memory(options_.queues * (transmit.memory_bytes() + receive.memory_bytes()),
                              options_.huge_pages));
  for (uint16_t index = 0; index < options_.queues; ++index) {
    Pair& pair = pairs_.emplace_back();
    pair.receiver =
        std::make_unique<Receiver>(TRY(Receiver::make(receive, options_.mergeable, front_end_->memory())));
    pair.transmitter = std::make_unique<Transmitter>(TRY(Transmitter::make(transmit, front_end_->memory())));
  }
  return front_end_->share_memory();
}

Result<> NetFrontEnd::start_pairs() {
  size_t number = 0;
  for (const Pair& pair : pairs_) {
    for (NetRing* const ring :
         {static_cast<NetRing*>(pair.receiver.get()), static_cast<NetRing*>(pair.transmitter.get())}) {
      ring->set_kick(TRY(front_end_->add_ring(options_.ring_size, format_, ring->addresses())));
      TRY(front_end_->start_ring(number++));
      ring->disable_calls();
    }
    pair.receiver->refill();
    pair.receiver->publish();
  }
  return {};
}

uint32_t NetFrontEnd::room_for(uint32_t bytes) const {
  const uint32_t buffers = (net_header_bytes + bytes + options_.buffer_bytes - 1) / options_.buffer_bytes;
  const uint32_t descriptors = buffers * pairs_.front().receiver->options().descriptors();
  return std::max(options_.ring_size / descriptors, 1U);
}

std::vector<const Signal*> NetFrontEnd::call_signals(uint16_t queue) const {
  return {&front_end_->call_signal(2 * size_t{queue}), &front_end_->call_signal(2 * size_t{queue} + 1)};
}

std::expected<void, std::string> NetFrontEnd::greet() {
  Transmitter& transmitter = *pairs_.front().transmitter;
  transmitter.send(1, [&](uint16_t token) {
    write_greeting(mac_, transmitter.buffer(token));
    return greeting_bytes;
  });
  transmitter.publish();
  const int64_t end = now_ns() + options_.patience.count() * 1'000'000;
  while (transmitter.in_flight() > 0) {
    const auto taken = transmitter.reclaim(1);
    if (!taken)
      return std::unexpected(fmt::format("the back-end broke the ring: {}", taken.error().to_string()));
    if (const auto wrong = trouble()) return std::unexpected(*wrong);
    if (now_ns() > end) return std::unexpected(options_.socket + " does not take frames");
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return {};
}

}  // namespace ringway::tools
