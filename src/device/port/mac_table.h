// MacTable: behind which station of a switch an address was last seen. Reading takes no lock; learning
// something new does. Hostile stations are bounded: the more of the table one holds, the more it must leave
// free for the others, so nobody's entries are ever evicted but by age. Any thread. IEEE 802.1Q "The
// Filtering Database".
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "ringway/device/port/ethernet.h"

namespace ringway::port {

class MacTable {
 public:
  // Time is told in ticks, since a clock of its own would cost more than the look-up.
  static constexpr uint32_t ticks_per_second = 4;
  // An address that was seen so lately does not move to another station: neighbours cannot take it from one
  // that speaks.
  static constexpr uint32_t hold = ticks_per_second;

  struct Options {
    size_t limit = 16384;                      // entries
    uint32_t ageing = 300 * ticks_per_second;  // ticks
    size_t stations = 1024;                    // their numbers are less
  };
  explicit MacTable(const Options& options);

  enum class Learned : uint8_t {
    known,
    fresh,    // a new entry, or one that moved
    held,     // another station had it a moment ago
    refused,  // no place, or the station holds its share
  };
  Learned learn(uint16_t vlan, Mac mac, uint16_t station, uint32_t now);
  [[nodiscard]] std::optional<uint16_t> find(uint16_t vlan, Mac mac, uint32_t now) const;
  // All that is known of a station.
  void forget(uint16_t station);
  [[nodiscard]] size_t size() const;

 private:
  // A reader loads the key, the value and the key again; a writer clears the key before it changes the value.
  struct Entry {
    std::atomic<uint64_t> key = 0;    // 0: free
    std::atomic<uint64_t> value = 0;  // the station, and when it was seen
  };
  struct alignas(64) Bucket {
    std::array<Entry, 4> entries;
  };
  struct Places {
    Bucket* first;
    Bucket* second;
  };

  [[nodiscard]] Places places(uint64_t key) const;
  [[nodiscard]] Entry* entry_of(uint64_t key) const;
  [[nodiscard]] bool is_old(uint64_t value, uint32_t now) const;
  Learned add(uint64_t key, uint16_t station, uint32_t now);
  Learned move(Entry& entry, uint64_t key, uint16_t station, uint32_t now);
  Entry* free_entry(const Places& places);
  void put(Entry& entry, uint64_t key, uint16_t station, uint32_t now);
  void remove(Entry& entry);
  void sweep(uint32_t now);

  const Options options_;
  const std::array<uint64_t, 2> seed_;  // so that nobody can aim at a bucket
  size_t mask_ = 0;
  std::unique_ptr<Bucket[]> buckets_;  // NOLINT: a fixed number, aligned
  mutable std::mutex mutex_;           // of all writers but those that refresh, and of what follows
  std::vector<uint32_t> held_by_;      // entries of each station
  size_t used_ = 0;
  size_t swept_ = 0;
};

}  // namespace ringway::port
