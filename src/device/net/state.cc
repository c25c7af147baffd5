#include "ringway/device/net/state.h"

#include <array>
#include <bit>
#include <cstring>

#include "ringway/base/endian.h"
#include "ringway/device/net/control.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification

constexpr uint32_t version = 1;
constexpr uint16_t least_mtu = 68;
// VIRTIO "Feature Bits": what lies between belongs to transport and rings.
constexpr uint64_t device_bits = (bit(24) - 1) | ~(bit(50) - 1);
constexpr size_t vlan_bytes = 4096 / 8;

enum Flag : uint32_t {
  announce_waits = 1U << 0,
  promiscuous = 1U << 1,
  all_multicast = 1U << 2,
  all_unicast = 1U << 3,
  no_multicast = 1U << 4,
  no_unicast = 1U << 5,
  no_broadcast = 1U << 6,
  unicast_table_overflows = 1U << 7,
  multicast_table_overflows = 1U << 8,
  hash_reported = 1U << 9,
  hash_calculated = 1U << 10,
};
constexpr uint32_t known_flags = (1U << 11) - 1;

struct Calls {
  le32 chains;
  le32 delay;  // us
};

struct Head {
  le32 version;
  le32 flags;
  le64 features;
  le64 offloads;
  Mac mac{};
  le16 mtu;
  le16 pairs;
  le16 unicast;    // entries
  le16 multicast;  // entries
  le16 table;      // entries; 0: the driver has not chosen by a table
  le32 hash_types;
  le16 unclassified;
  le16 reserved;
  HashKey key{};
  std::array<std::byte, vlan_bytes> vlans{};  // the bit of VLAN n is bit n % 8 of byte n / 8
  Calls receive_calls;
  Calls transmit_calls;
};
static_assert(sizeof(Head) == 64 + hash_key_size + vlan_bytes);

Calls to_state(const engine::CallModeration& moderation) {
  return {.chains = moderation.chains, .delay = static_cast<uint32_t>(moderation.delay.count())};
}
engine::CallModeration from_state(const Calls& calls) {
  return {.chains = calls.chains, .delay = std::chrono::microseconds(uint32_t{calls.delay})};
}

struct Mode {
  Flag flag;
  bool Filter::* member;
};
constexpr Mode modes[] = {
    {promiscuous, &Filter::promiscuous}, {all_multicast, &Filter::all_multicast},
    {all_unicast, &Filter::all_unicast}, {no_multicast, &Filter::no_multicast},
    {no_unicast, &Filter::no_unicast},   {no_broadcast, &Filter::no_broadcast},
};

template <class T>
void append(std::vector<std::byte>& bytes, const T& value) {
  const auto more = std::as_bytes(std::span(&value, 1));
  bytes.insert(bytes.end(), more.begin(), more.end());
}

uint32_t flags_of(const State& state) {
  const Filter& filter = state.rules.filter;
  const Spread& spread = state.rules.spread;
  uint32_t flags = 0;
  const auto set = [&](bool is_set, Flag flag) { flags |= is_set ? flag : 0U; };
  set(state.announce, announce_waits);
  for (const Mode& mode : modes) set(filter.*mode.member, mode.flag);
  set(filter.unicast.all, unicast_table_overflows);
  set(filter.multicast.all, multicast_table_overflows);
  set(spread.reported, hash_reported);
  set(spread.hash != nullptr && spread.by_driver(), hash_calculated);
  return flags;
}

// Takes the parts of a state one after the other.
class Parts {
 public:
  explicit Parts(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  bool take(T& value) {
    if (bytes_.size() < sizeof value) return false;
    std::memcpy(static_cast<void*>(&value), bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return true;
  }
  // As many as `values` has.
  template <class T>
  bool take_all(std::vector<T>& values) {
    for (T& value : values) {
      if (!take(value)) return false;
    }
    return true;
  }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
};

// What is wrong with the head by itself; null: nothing.
const char* mistake_in(const Head& head, uint64_t offered, uint16_t pairs) {
  const auto has = [&](unsigned feature) { return (head.features & bit(feature)) != 0; };
  const bool by_table = head.table > 0;
  if (head.version != version) return "the state of a network device is of another version";
  if ((head.flags & ~known_flags) != 0 || head.reserved != 0)
    return "the state of a network device has unknown flags";
  if ((head.features & device_bits & ~offered) != 0)
    return "this network device lacks a feature that is in use";
  if ((head.offloads & ~(head.features & receive_offloads)) != 0)
    return "the state of a network device has offloads that were not agreed on";
  if (head.mtu != 0 && head.mtu < least_mtu) return "the state of a network device has an impossible MTU";
  if (head.pairs > pairs) return "this network device has fewer queues than are in use";
  if (head.unicast > Filter::table_limit || head.multicast > Filter::table_limit)
    return "the state of a network device has too many addresses";
  if ((head.hash_types & ~supported_hash_types) != 0)
    return "this network device lacks a hash that is in use";
  if ((head.flags & hash_reported) != 0 && !has(VIRTIO_NET_F_HASH_REPORT))
    return "the state of a network device reports a hash that was not agreed on";
  if (by_table &&
      (!has(VIRTIO_NET_F_RSS) || head.table > max_table || !std::has_single_bit<uint32_t>(head.table)))
    return "the state of a network device has an impossible indirection table";
  for (const Calls& calls : {head.receive_calls, head.transmit_calls}) {
    if (calls.delay > longest_call_delay ||
        (!has(VIRTIO_NET_F_NOTF_COAL) && (calls.chains | calls.delay) != 0))
      return "the state of a network device holds calls as was not agreed on";
  }
  if (head.unclassified >= pairs) return "this network device has fewer queues than are in use";
  return nullptr;
}

Result<Spread> spread_of(const Head& head, const std::vector<le16>& table, uint16_t pairs) {
  Spread spread{.types = head.hash_types,
                .reported = (head.flags & hash_reported) != 0,
                .unclassified = head.unclassified};
  for (const uint16_t pair : table) {
    if (pair >= pairs) return refused("this network device has fewer queues than are in use", pair);
    spread.table.push_back(pair);
  }
  if ((head.flags & hash_calculated) != 0) spread.hash = std::make_shared<const Toeplitz>(head.key);
  if (!spread.table.empty() && spread.hash == nullptr)
    return refused("the state of a network device has an indirection table and no hash");
  return spread;
}

}  // namespace

std::vector<std::byte> State::to_bytes() const {
  const Filter& filter = rules.filter;
  const Spread& spread = rules.spread;
  Head head;
  head.version = version;
  head.flags = flags_of(*this);
  head.features = features;
  head.offloads = rules.offloads;
  head.mac = mac;
  head.mtu = mtu;
  head.pairs = rules.pairs;
  head.unicast = static_cast<uint16_t>(filter.unicast.macs.size());
  head.multicast = static_cast<uint16_t>(filter.multicast.macs.size());
  if (spread.by_driver()) {
    head.table = static_cast<uint16_t>(spread.table.size());
    head.hash_types = spread.types;
    head.unclassified = spread.unclassified;
    if (spread.hash) head.key = spread.hash->key();
  }
  for (size_t vlan = 0; vlan < filter.vlans.size(); ++vlan) {
    if (filter.vlans[vlan]) head.vlans[vlan / 8] |= std::byte{1} << (vlan % 8);
  }
  head.receive_calls = to_state(rules.receive_calls);
  head.transmit_calls = to_state(rules.transmit_calls);
  std::vector<std::byte> bytes;
  append(bytes, head);
  for (const Filter::Table* one : {&filter.unicast, &filter.multicast}) {
    for (const Mac& address : one->macs) append(bytes, address);
  }
  for (const uint16_t pair : spread.table) append(bytes, le16(pair));
  return bytes;
}

Result<State> State::from_bytes(std::span<const std::byte> bytes, uint64_t features, uint16_t pairs) {
  Parts parts(bytes);
  Head head;
  if (!parts.take(head)) return refused("the state of a network device is cut off", bytes.size());
  if (const char* mistake = mistake_in(head, features, pairs)) return refused(mistake);
  State state{.features = head.features,
              .mac = head.mac,
              .mtu = head.mtu,
              .announce = (head.flags & announce_waits) != 0,
              .rules = {.offloads = head.offloads,
                        .pairs = head.pairs,
                        .receive_calls = from_state(head.receive_calls),
                        .transmit_calls = from_state(head.transmit_calls)}};
  Filter& filter = state.rules.filter;
  for (const Mode& mode : modes) filter.*mode.member = (head.flags & mode.flag) != 0;
  filter.unicast = {.macs = std::vector<Mac>(head.unicast),
                    .all = (head.flags & unicast_table_overflows) != 0};
  filter.multicast = {.macs = std::vector<Mac>(head.multicast),
                      .all = (head.flags & multicast_table_overflows) != 0};
  for (size_t vlan = 0; vlan < filter.vlans.size(); ++vlan)
    filter.vlans[vlan] = (head.vlans[vlan / 8] >> (vlan % 8) & std::byte{1}) != std::byte{0};
  filter.by_vlan = (head.features & bit(VIRTIO_NET_F_CTRL_VLAN)) != 0;
  filter.own = head.mac;
  std::vector<le16> table(head.table);
  const bool whole = parts.take_all(filter.unicast.macs) && parts.take_all(filter.multicast.macs) &&
                     parts.take_all(table) && parts.empty();
  if (!whole) return refused("the state of a network device has another size", bytes.size());
  state.rules.spread = TRY(spread_of(head, table, pairs));
  return state;
}

}  // namespace ringway::net
