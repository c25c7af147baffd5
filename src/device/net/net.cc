#include "ringway/device/net/net.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "ringway/base/log.h"
#include "ringway/device/net/control.h"
#include "ringway/device/net/receive.h"
#include "ringway/device/net/state.h"
#include "ringway/device/net/transmit.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification

// In front of the MTU's bytes: addresses and type, and two VLAN tags.
constexpr uint32_t link_header = 14 + 2 * 4;
constexpr uint16_t usual_mtu = 1500;

// For the device's own choice of queues. That flows differ is all that it has to bring about.
HashKey own_key() {
  HashKey key;
  uint32_t value = 1;
  for (std::byte& one : key) one = static_cast<std::byte>((value = value * 1664525 + 1013904223) >> 24U);
  return key;
}

}  // namespace

Net::Net(std::unique_ptr<Port> port, const Options& options)
    : port_(std::move(port)), options_(options), mtu_(options.mtu), mac_(options.mac) {
  assert(options.pairs >= 1 && options.pairs <= max_pairs && port_->abilities().head <= max_head);
  rulebook_.replace(first_rules());
  port_->on_link_change([this] { config_changed(); });
}

Net::~Net() { port_->on_link_change(nullptr); }

std::vector<Counter> Net::counters() const {
  std::vector<Counter> all = port_->counters();
  for (size_t i = 0; i < drop_reasons; ++i) {
    all.push_back({.name = drop_names[i], .value = drops_.of(static_cast<Drop>(i))});
  }
  return all;
}

uint32_t Net::device_id() const { return VIRTIO_ID_NET; }

bool Net::has(unsigned feature) const { return (features_ & bit(feature)) != 0; }

uint64_t Net::features() const {
  const Abilities& abilities = port_->abilities();
  uint64_t bits = bit(VIRTIO_NET_F_MTU) | bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS) |
                  bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) |
                  bit(VIRTIO_NET_F_CTRL_RX_EXTRA) | bit(VIRTIO_NET_F_CTRL_VLAN) |
                  bit(VIRTIO_NET_F_CTRL_MAC_ADDR) | bit(VIRTIO_NET_F_GUEST_ANNOUNCE) |
                  bit(VIRTIO_NET_F_HASH_REPORT) | bit(VIRTIO_NET_F_NOTF_COAL) |
                  (abilities.takes & transmit_offloads) | (abilities.gives & receive_offloads);
  if (options_.pairs > 1) bits |= bit(VIRTIO_NET_F_MQ) | bit(VIRTIO_NET_F_RSS);
  if ((abilities.gives & receive_offloads) != 0) bits |= bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
  if (port_->link().speed_mbps > 0) bits |= bit(VIRTIO_NET_F_SPEED_DUPLEX);
  return bits;
}

// Said again, as when logging is switched on and off, the same features change nothing that the driver has
// set.
void Net::set_features(uint64_t features) {
  if (features == features_) return;
  features_ = features;
  const bool is_loaded = std::exchange(loaded_features_, std::nullopt) == features;
  if (!is_loaded) rulebook_.replace(first_rules());
  wish();
}

void Net::reset() {
  announce_ = false;
  loaded_features_.reset();
  {
    const std::scoped_lock lock(mutex_);
    mac_ = options_.mac;
  }
  rulebook_.replace(first_rules());
  wish();
}

// Before the driver has commanded anything.
Rules Net::first_rules() const {
  Rules rules{.offloads = features_ & receive_offloads};
  rules.filter.by_vlan = has(VIRTIO_NET_F_CTRL_VLAN);
  rules.filter.own = mac();
  rules.spread = first_spread(features_);
  return rules;
}

Spread Net::first_spread(uint64_t features) const {
  const bool many = (features & bit(VIRTIO_NET_F_MQ)) != 0;
  if (!many || options_.pairs <= port_->abilities().pairs) return {};
  return {
      .types = supported_hash_types, .hash = std::make_shared<const Toeplitz>(own_key()), .automatic = true};
}

Mac Net::mac() const {
  const std::scoped_lock lock(mutex_);
  return mac_;
}

void Net::wish() {
  const auto rules = rulebook_.present();
  const uint16_t pairs = rules->pairs > 0 ? rules->pairs : options_.pairs;
  if (auto wished = port_->wish({.offloads = rules->offloads, .pairs = pairs}); !wished)
    log::warning("{}", wished.error().to_string());
}

Config Net::config() const {
  const Link link = port_->link();
  Config config;
  config.mac = mac();
  config.status =
      static_cast<uint16_t>((link.up ? VIRTIO_NET_S_LINK_UP : 0) | (announce_ ? VIRTIO_NET_S_ANNOUNCE : 0));
  config.max_virtqueue_pairs = options_.pairs;
  config.mtu = mtu_ > 0 ? mtu_.load() : usual_mtu;
  config.speed = link.speed_mbps > 0 ? link.speed_mbps : UINT32_MAX;
  config.duplex = link.speed_mbps > 0 ? 1 : 0xff;
  config.rss_max_key_size = hash_key_size;
  config.rss_max_indirection_table_length = max_table;
  config.supported_hash_types = supported_hash_types;
  return config;
}

void Net::read_config(uint32_t offset, std::span<std::byte> to) const {
  const Config current = config();
  std::ranges::copy(std::as_bytes(std::span(&current, 1)).subspan(offset, to.size()), to.begin());
}

// Only the address may be written: by legacy drivers, and by a front-end that brings what was read elsewhere.
Result<> Net::write_config(uint32_t offset, std::span<const std::byte> from, bool restore) {
  constexpr size_t end = offsetof(Config, mac) + sizeof(Mac);
  const bool legacy = !has(VIRTIO_F_VERSION_1) && offset + from.size() <= end;
  if (!legacy && !restore) return refused("only a legacy driver may write, and only the MAC address", offset);
  if (offset >= end) return {};  // a restored field that this device knows better
  {
    const std::scoped_lock lock(mutex_);
    const size_t length = std::min(from.size(), end - offset);
    std::ranges::copy(from.first(length), mac_.begin() + offset);
  }
  Rules rules = *rulebook_.present();
  rules.filter.own = mac();
  rulebook_.replace(std::move(rules));
  return {};
}

Result<> Net::set_mtu(uint16_t mtu) {
  if (mtu_.exchange(mtu) == mtu) return {};
  limit_frames();
  config_changed();
  return {};
}

std::vector<std::byte> Net::save_state() const {
  const State state{.features = loaded_features_.value_or(features_),
                    .mac = mac(),
                    .mtu = mtu_,
                    .announce = announce_,
                    .rules = *rulebook_.present()};
  return state.to_bytes();
}

// Before or after the front-end says what the driver has agreed on.
Result<> Net::load_state(std::span<const std::byte> bytes) {
  State state = TRY(State::from_bytes(bytes, features(), options_.pairs));
  if (features_ != 0 && features_ != state.features)
    return refused("the driver had agreed on other features", state.features);
  Spread spread = first_spread(state.features);
  if (state.rules.spread.by_driver()) {
    state.rules.spread.automatic = spread.automatic && state.rules.spread.table.empty();
  } else {
    state.rules.spread = std::move(spread);
  }
  loaded_features_ = state.features;
  if (state.mtu != 0) mtu_ = state.mtu;
  announce_ = state.announce;
  {
    const std::scoped_lock lock(mutex_);
    mac_ = state.mac;
  }
  rulebook_.replace(std::move(state.rules));
  wish();
  return {};
}

// Of what was agreed upon and the MTU as it is now.
void Net::limit_frames() {
  const uint32_t mtu = has(VIRTIO_NET_F_MTU) ? mtu_.load() : 0;
  longest_frame_.store(mtu > 0 ? std::min(mtu + link_header, max_frame) : max_frame,
                       std::memory_order_relaxed);
}

// VIRTIO "Virtqueues": without several pairs the control queue is the third, however many pairs there could
// be.
Net::Role Net::role_of(uint16_t queue) const {
  const bool many = has(VIRTIO_NET_F_MQ) || has(VIRTIO_NET_F_RSS);
  const uint16_t control = many ? 2 * options_.pairs : 2;
  if (queue == control && has(VIRTIO_NET_F_CTRL_VQ)) return Role::control;
  return queue % 2 == 0 ? Role::receive : Role::transmit;
}

bool Net::runs_disabled(uint16_t queue) const { return role_of(queue) == Role::transmit; }

std::unique_ptr<engine::Queue> Net::start_queue(engine::QueueLoop& loop) {
  const auto pair = static_cast<uint16_t>(loop.index() / 2);
  switch (role_of(loop.index())) {
    case Role::receive:
      return start_receive(loop, pair);
    case Role::transmit:
      return start_transmit(loop, pair);
    case Role::control:
      break;
  }
  return start_control(loop);
}

std::unique_ptr<engine::Queue> Net::start_receive(engine::QueueLoop& loop, uint16_t pair) {
  auto queue = std::make_unique<ReceiveQueue>(
      loop, pair, ReceiveQueue::Shared{.rulebook = rulebook_, .team = team_, .drops = drops_});
  if (pair < port_->abilities().pairs) queue->open_inlet(*port_);
  return queue;
}

std::unique_ptr<engine::Queue> Net::start_transmit(engine::QueueLoop& loop, uint16_t pair) {
  if (!loop.enabled()) return std::make_unique<DiscardingQueue>(loop, drops_);
  limit_frames();
  auto queue = std::make_unique<TransmitQueue>(loop, *port_, pair, longest_frame_, rulebook_, drops_);
  if (pair == 0) {
    transmitter_ = queue.get();
    transmitter_worker_ = &loop.worker();
    queue->on_end = [this] { transmitter_ = nullptr; };
  }
  return queue;
}

std::unique_ptr<engine::Queue> Net::start_control(engine::QueueLoop& loop) {
  Rules rules = *rulebook_.present();
  // VIRTIO "Automatic receive steering": whoever can say how many pairs it uses begins with one.
  if (rules.pairs == 0 && rules.spread.table.empty() && has(VIRTIO_NET_F_MQ)) rules.pairs = 1;
  rulebook_.replace(std::move(rules));
  wish();
  control_runs_ = true;
  auto queue = std::make_unique<ControlQueue>(loop, Command{.features = features_,
                                                            .pairs = options_.pairs,
                                                            .big_endian = loop.big_endian(),
                                                            .rulebook = &rulebook_,
                                                            .rules_changed = [this] { wish(); },
                                                            .set_mac =
                                                                [this](const Mac& mac) {
                                                                  const std::scoped_lock lock(mutex_);
                                                                  mac_ = mac;
                                                                },
                                                            .announced = [this] { announce_ = false; }});
  queue->on_end = [this] { control_runs_ = false; };
  return queue;
}

Result<> Net::announce(const std::array<std::byte, 6>& mac) {
  if (has(VIRTIO_NET_F_GUEST_ANNOUNCE) && control_runs_) {
    announce_ = true;
    config_changed();
    return {};
  }
  if (transmitter_ == nullptr) return refused("no transmit queue runs that could announce anything");
  if (!announcement_.fill(mac)) return {};  // one is on its way
  transmitter_worker_->run([this] {
    if (transmitter_->send_own(announcement_) == Outlet::Sent::done) announcement_.free();
  });
  return {};
}

}  // namespace ringway::net
