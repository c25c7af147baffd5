// Station: what a switch knows of one of its ports: what the port may do, where its queues run, and what came
// of its frames. Lives as long as the switch, so any thread may hold on to one. Each part says which thread
// writes it.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <vector>

#include "ringway/device/port/ethernet.h"
#include "ringway/device/port/port.h"
#include "ringway/device/port/rate_limit.h"

namespace ringway::port {

class Crossing;
class Door;

// What came of frames; names for people are in station.cc.
enum class Count : uint8_t {
  sent,            // frames that the station gave to the switch
  sent_bytes,      // of them
  received,        // frames that it got
  received_bytes,  // of them
  flooded,         // sent frames that went to everybody
  not_learned,     // sent frames whose source found no place in the table
  // What follows was sent by the station and dropped.
  bad_source,
  wrong_vlan,
  malformed,
  too_fast,
  storm,
  not_allowed,  // isolated from the receiver, or meant for itself
  not_running,  // the receiver has no queue
  too_many,     // of its frames are on their way to other workers
  // What follows was meant for the station and dropped.
  no_buffers,
  receives_too_fast,
  not_finished,  // the work left to do on it could not be done
  end,
};

// Counters with one thread that adds, and any that reads.
class Tally {
 public:
  void add(Count count, uint64_t amount = 1) {
    std::atomic<uint64_t>& value = values_[static_cast<size_t>(count)];
    value.store(value.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t operator[](Count count) const {
    return values_[static_cast<size_t>(count)].load(std::memory_order_relaxed);
  }

 private:
  alignas(64) std::array<std::atomic<uint64_t>, static_cast<size_t>(Count::end)> values_{};
};

struct StationOptions {
  std::optional<uint16_t> vlan;  // an access port: its frames carry no tag and belong to this VLAN
  std::bitset<4096> trunk = std::bitset<4096>().set().reset(0).reset(4095);  // else: these may pass
  uint16_t native = 1;     // where frames without a tag belong on a trunk; 0: nowhere
  bool isolated = false;   // does not reach others that are isolated
  bool mirror = false;     // gets a copy of every frame that others send, and sends none
  std::optional<Mac> mac;  // the only source address that it may use
  // Frames and bits a second; 0: no limit. What the station sends, gets, and sends to everybody.
  uint64_t tx_pps = 0;
  uint64_t tx_bps = 0;
  uint64_t rx_pps = 0;
  uint64_t rx_bps = 0;
  uint64_t flood_pps = 0;
};

class alignas(64) Station {
 public:
  static constexpr uint16_t max_pairs = 128;
  // Where the queue of a pair runs, if it does; written by the thread of that crossing, which alone may look
  // at the door.
  struct Way {
    std::atomic<Crossing*> crossing = nullptr;
    Door* door = nullptr;
  };

  Station(uint16_t number, const StationOptions& options);

  // What is asked for every frame to the station comes first, on one cache line with the first way: with many
  // stations each frame finds another one's.
  const uint16_t number;    // in the switch
  const uint16_t untagged;  // the VLAN of frames without a tag; 0: they may not pass
  const bool is_isolated;
  const bool is_mirror;
  const bool has_limits;            // of rates, whichever
  std::atomic<uint16_t> pairs = 1;  // between which its frames are spread
  std::array<Way, max_pairs> ways;

  const StationOptions options;
  [[nodiscard]] bool carries(uint16_t vlan) const {
    return vlan == untagged || (!options.vlan && options.trunk[vlan]);
  }

  RateLimit tx_packets, tx_bits, rx_packets, rx_bits, flood_packets;
  [[nodiscard]] bool may_send(uint64_t now, uint64_t bytes) {
    return !has_limits || (tx_packets.take(now, 1) && tx_bits.take(now, bytes * 8));
  }
  [[nodiscard]] bool may_receive(uint64_t now, uint64_t bytes) {
    return !has_limits || (rx_packets.take(now, 1) && rx_bits.take(now, bytes * 8));
  }

  // Any thread. A tally stays good and keeps its counts; what is closed is given to the next that opens one.
  Tally& open_tally();
  void close_tally(Tally& tally);
  [[nodiscard]] std::vector<Counter> counters() const;
  [[nodiscard]] uint64_t count(Count what) const;

 private:
  mutable std::mutex mutex_;
  std::list<Tally> tallies_;
  std::vector<Tally*> free_tallies_;
};

}  // namespace ringway::port
