#include "ringway/device/port/station.h"

namespace ringway::port {
namespace {

constexpr uint64_t packet_burst = 64;
constexpr uint64_t bit_burst = uint64_t{8} * 128 * 1024;

constexpr std::array<const char*, static_cast<size_t>(Count::end)> names = {
    "frames sent",
    "bytes sent",
    "frames received",
    "bytes received",
    "frames sent to everybody",
    "frames with an address not learned",
    "sent, dropped: source address",
    "sent, dropped: VLAN",
    "sent, dropped: malformed",
    "sent, dropped: rate",
    "sent, dropped: storm",
    "sent, dropped: not allowed",
    "sent, dropped: receiver not running",
    "sent, dropped: too many on their way",
    "to receive, dropped: no buffers",
    "to receive, dropped: rate",
    "to receive, dropped: offload cannot be done",
};

}  // namespace

Station::Station(uint16_t its_number, const StationOptions& its_options)
    : number(its_number),
      untagged(its_options.vlan.value_or(its_options.native)),
      is_isolated(its_options.isolated),
      is_mirror(its_options.mirror),
      has_limits((its_options.tx_pps | its_options.tx_bps | its_options.rx_pps | its_options.rx_bps) != 0),
      options(its_options),
      tx_packets(options.tx_pps, packet_burst),
      tx_bits(options.tx_bps, bit_burst),
      rx_packets(options.rx_pps, packet_burst),
      rx_bits(options.rx_bps, bit_burst),
      flood_packets(options.flood_pps, packet_burst) {}

Tally& Station::open_tally() {
  const std::scoped_lock lock(mutex_);
  if (free_tallies_.empty()) return tallies_.emplace_back();
  Tally& tally = *free_tallies_.back();
  free_tallies_.pop_back();
  return tally;
}

void Station::close_tally(Tally& tally) {
  const std::scoped_lock lock(mutex_);
  free_tallies_.push_back(&tally);
}

uint64_t Station::count(Count what) const {
  const std::scoped_lock lock(mutex_);
  uint64_t sum = 0;
  for (const Tally& tally : tallies_) sum += tally[what];
  return sum;
}

std::vector<Counter> Station::counters() const {
  std::vector<Counter> counters;
  for (size_t i = 0; i < names.size(); ++i) {
    counters.push_back({.name = names[i], .value = count(static_cast<Count>(i))});
  }
  return counters;
}

}  // namespace ringway::port
