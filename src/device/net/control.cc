#include "ringway/device/net/control.h"

#include <algorithm>
#include <array>
#include <bit>

#include "ringway/device/port/virtio_net.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification

enum Group : uint8_t {  // the specification calls it class
  VIRTIO_NET_CTRL_RX = 0,
  VIRTIO_NET_CTRL_MAC = 1,
  VIRTIO_NET_CTRL_VLAN = 2,
  VIRTIO_NET_CTRL_ANNOUNCE = 3,
  VIRTIO_NET_CTRL_MQ = 4,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5,
  VIRTIO_NET_CTRL_NOTF_COAL = 6,
};
enum RxCommand : uint8_t {
  VIRTIO_NET_CTRL_RX_PROMISC = 0,
  VIRTIO_NET_CTRL_RX_ALLMULTI = 1,
  VIRTIO_NET_CTRL_RX_ALLUNI = 2,
  VIRTIO_NET_CTRL_RX_NOMULTI = 3,
  VIRTIO_NET_CTRL_RX_NOUNI = 4,
  VIRTIO_NET_CTRL_RX_NOBCAST = 5,
};
enum MacCommand : uint8_t { VIRTIO_NET_CTRL_MAC_TABLE_SET = 0, VIRTIO_NET_CTRL_MAC_ADDR_SET = 1 };
enum VlanCommand : uint8_t { VIRTIO_NET_CTRL_VLAN_ADD = 0, VIRTIO_NET_CTRL_VLAN_DEL = 1 };
enum AnnounceCommand : uint8_t { VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0 };
enum MqCommand : uint8_t {
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2,
};
enum OffloadCommand : uint8_t { VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0 };
enum CoalescingCommand : uint8_t {
  VIRTIO_NET_CTRL_NOTF_COAL_TX_SET = 0,
  VIRTIO_NET_CTRL_NOTF_COAL_RX_SET = 1
};

constexpr bool is_group(const Mac& mac) { return (mac[0] & std::byte{1}) != std::byte{0}; }

}  // namespace

void ControlQueue::process(ring::Chain chain) {
  ring::Writer answer = chain.writer();
  if (answer.remaining() == 0)
    return loop_.complete(std::move(chain), 0);  // nobody wants to know; nothing is done
  answer.write(command_.execute(chain.reader()));
  loop_.complete(std::move(chain), 1);
}

bool Command::has(unsigned feature) const { return (features & bit(feature)) != 0; }

template <class T>
bool Command::read(ring::Reader& from, T& value) const {
  if (!from.read(value)) return false;
  if (big_endian == (std::endian::native == std::endian::little)) value = std::byteswap(value);
  return true;
}

uint8_t Command::execute(ring::Reader from) const { return run(from) ? VIRTIO_NET_OK : VIRTIO_NET_ERR; }

bool Command::run(ring::Reader& from) const {
  uint8_t group = 0;
  uint8_t command = 0;
  if (!from.read(group) || !from.read(command)) return false;
  if (group == VIRTIO_NET_CTRL_ANNOUNCE) {
    if (!has(VIRTIO_NET_F_GUEST_ANNOUNCE) || command != VIRTIO_NET_CTRL_ANNOUNCE_ACK) return false;
    announced();
    return true;
  }
  Rules rules = *rulebook->present();
  if (!change(group, command, from, rules)) return false;
  rulebook->replace(std::move(rules));
  rules_changed();
  return true;
}

bool Command::change(uint8_t group, uint8_t command, ring::Reader& from, Rules& rules) const {
  switch (group) {
    case VIRTIO_NET_CTRL_RX:
      return set_mode(command, from, rules);
    case VIRTIO_NET_CTRL_MAC:
      if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) return set_address(from, rules);
      return command == VIRTIO_NET_CTRL_MAC_TABLE_SET && has(VIRTIO_NET_F_CTRL_RX) &&
             set_table(from, rules.filter.unicast) && set_table(from, rules.filter.multicast);
    case VIRTIO_NET_CTRL_VLAN:
      return set_vlan(command, from, rules);
    case VIRTIO_NET_CTRL_MQ:
      if (command == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) return set_pairs(from, rules);
      if (command == VIRTIO_NET_CTRL_MQ_RSS_CONFIG)
        return has(VIRTIO_NET_F_RSS) && set_spread(true, from, rules);
      return command == VIRTIO_NET_CTRL_MQ_HASH_CONFIG && has(VIRTIO_NET_F_HASH_REPORT) &&
             set_spread(false, from, rules);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
      return command == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET && set_offloads(from, rules);
    case VIRTIO_NET_CTRL_NOTF_COAL:
      return set_coalescing(command, from, rules);
    default:
      return false;
  }
}

bool Command::set_mode(uint8_t mode, ring::Reader& from, Rules& rules) const {
  static constexpr std::array modes = {&Filter::promiscuous,  &Filter::all_multicast, &Filter::all_unicast,
                                       &Filter::no_multicast, &Filter::no_unicast,    &Filter::no_broadcast};
  const unsigned needed =
      mode <= VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA;
  uint8_t on = 0;
  if (mode >= modes.size() || !has(needed) || !from.read(on)) return false;
  rules.filter.*modes[mode] = on != 0;
  return true;
}

bool Command::set_table(ring::Reader& from, Filter::Table& table) const {
  uint32_t entries = 0;
  if (!read(from, entries) || from.remaining() / sizeof(Mac) < entries) return false;
  table = {};
  if (entries > Filter::table_limit) {
    table.all = true;
    return from.skip(uint64_t{entries} * sizeof(Mac));
  }
  table.macs.resize(entries);
  return from.read(std::as_writable_bytes(std::span(table.macs)));
}

bool Command::set_address(ring::Reader& from, Rules& rules) const {
  Mac mac;
  if (!has(VIRTIO_NET_F_CTRL_MAC_ADDR) || !from.read(mac) || is_group(mac)) return false;
  rules.filter.own = mac;
  set_mac(mac);
  return true;
}

bool Command::set_vlan(uint8_t command, ring::Reader& from, Rules& rules) const {
  uint16_t vlan = 0;
  if (!has(VIRTIO_NET_F_CTRL_VLAN) || command > VIRTIO_NET_CTRL_VLAN_DEL || !read(from, vlan)) return false;
  if (vlan >= rules.filter.vlans.size()) return false;
  rules.filter.vlans[vlan] = command == VIRTIO_NET_CTRL_VLAN_ADD;
  return true;
}

bool Command::set_pairs(ring::Reader& from, Rules& rules) const {
  uint16_t wanted = 0;
  if (!has(VIRTIO_NET_F_MQ) || !read(from, wanted) || wanted < 1 || wanted > pairs) return false;
  rules.pairs = wanted;
  rules.spread.table.clear();  // this command and RSS_CONFIG end each other's effect
  return true;
}

// struct virtio_net_rss_config and struct virtio_net_hash_config.
bool Command::set_spread(bool rss, ring::Reader& from, Rules& rules) const {
  Spread spread;
  uint16_t mask = 0;
  uint16_t transmitters = 0;
  if (!read(from, spread.types) || (spread.types & ~supported_hash_types) != 0) return false;
  if (rss) {
    if (!read(from, mask) || mask >= max_table || !std::has_single_bit(mask + 1U)) return false;
    if (!read(from, spread.unclassified) || spread.unclassified >= pairs) return false;
    spread.table.resize(mask + size_t{1});
    for (uint16_t& pair : spread.table) {
      if (!read(from, pair) || pair >= pairs) return false;
    }
    if (!read(from, transmitters) || transmitters < 1 || transmitters > pairs) return false;
    rules.pairs = 0;  // the table says which
  } else {
    if (!from.skip(4 * sizeof(uint16_t))) return false;
    spread.table = rules.spread.table;
    spread.unclassified = rules.spread.unclassified;
    spread.automatic = rules.spread.automatic;
  }
  uint8_t key_length = 0;
  HashKey key{};
  if (!from.read(key_length) || key_length > key.size() || !from.read(std::span(key).first(key_length)))
    return false;
  spread.reported = has(VIRTIO_NET_F_HASH_REPORT);
  if (spread.types != 0 || rss || spread.automatic) spread.hash = std::make_shared<const Toeplitz>(key);
  rules.spread = std::move(spread);
  return true;
}

// struct virtio_net_ctrl_coal
bool Command::set_coalescing(uint8_t command, ring::Reader& from, Rules& rules) const {
  uint32_t packets = 0;
  uint32_t delay = 0;
  if (!has(VIRTIO_NET_F_NOTF_COAL) || command > VIRTIO_NET_CTRL_NOTF_COAL_RX_SET) return false;
  if (!read(from, packets) || !read(from, delay) || delay > longest_call_delay) return false;
  auto& calls = command == VIRTIO_NET_CTRL_NOTF_COAL_TX_SET ? rules.transmit_calls : rules.receive_calls;
  calls = {.chains = packets, .delay = std::chrono::microseconds(delay)};
  return true;
}

bool Command::set_offloads(ring::Reader& from, Rules& rules) const {
  uint64_t offloads = 0;
  if (!has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !read(from, offloads)) return false;
  if ((offloads & ~(features & receive_offloads)) != 0) return false;
  rules.offloads = offloads;
  return true;
}

}  // namespace ringway::net
