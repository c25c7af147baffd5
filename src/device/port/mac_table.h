// MacTable: behind which station of a switch an address was last seen. Reading takes no lock; learning
// something new does. Hostile stations are bounded: the more of the table one holds, the more it must leave
// free for the others, so nobody's entries are ever evicted but by age. Any thread. IEEE 802.1Q "The
// Filtering Database".
#pragma once

#include <array>
#include <atomic>
#include <bit>
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
  [[nodiscard]] std::optional<uint16_t> find(uint16_t vlan, Mac mac, uint32_t now) const {
    const uint64_t key = key_of(vlan, mac);
    const Entry* entry = entry_of(key);
    if (entry == nullptr) return {};
    const uint64_t value = entry->value.load(std::memory_order_acquire);
    if (entry->key.load(std::memory_order_relaxed) != key || is_old(value, now)) return {};
    return station_of(value);
  }
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
    // Null: it is not here. Where an address lies cannot be foretold: all four are compared, and no branch
    // is guessed.
    [[nodiscard]] Entry* entry_of(uint64_t key) {
      unsigned equal = 0;
      for (unsigned i = 0; i < entries.size(); ++i)
        equal |= unsigned{entries[i].key.load(std::memory_order_acquire) == key} << i;
      return equal == 0 ? nullptr : &entries[static_cast<unsigned>(std::countr_zero(equal))];
    }
  };
  struct Places {
    Bucket* first;
    Bucket* second;
  };

  // Odd, and nothing else is special in it. One multiplication by a number drawn at random is not enough: one
  // in some hundred leaves neighbouring addresses in the same buckets.
  static constexpr uint64_t scatter = 0xd1b54a32d192ed03;

  static uint64_t folded(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
  }
  static uint64_t key_of(uint16_t vlan, Mac mac) { return mac | uint64_t{vlan} << 48 | uint64_t{1} << 63; }
  static uint16_t station_of(uint64_t value) { return static_cast<uint16_t>(value); }
  static uint32_t seen(uint64_t value) { return static_cast<uint32_t>(value >> 32); }
  [[nodiscard]] Places places(uint64_t key) const {
    const uint64_t hash = folded(folded(key ^ seed_[0], seed_[1]) ^ seed_[2], scatter);
    return {&buckets_[hash & mask_], &buckets_[hash >> 32 & mask_]};
  }
  [[nodiscard]] Entry* entry_of(uint64_t key) const {
    const Places both = places(key);
    Entry* const entry = both.first->entry_of(key);
    return entry != nullptr ? entry : both.second->entry_of(key);
  }
  [[nodiscard]] bool is_old(uint64_t value, uint32_t now) const {
    const uint32_t age = now - seen(value);
    return age > options_.ageing && age < uint32_t{1} << 31;  // another thread's now may be behind
  }
  Learned add(uint64_t key, uint16_t station, uint32_t now);
  Learned move(Entry& entry, uint64_t key, uint16_t station, uint32_t now);
  Entry* free_entry(const Places& places);
  Entry* make_room(Bucket& bucket);
  void put(Entry& entry, uint64_t key, uint16_t station, uint32_t now);
  void remove(Entry& entry);
  void sweep(uint32_t now);

  const Options options_;
  const std::array<uint64_t, 3> seed_;  // so that nobody can aim at a bucket
  size_t mask_ = 0;
  std::unique_ptr<Bucket[]> buckets_;  // NOLINT: a fixed number, aligned
  mutable std::mutex mutex_;           // of all writers but those that refresh, and of what follows
  std::vector<uint32_t> held_by_;      // entries of each station
  size_t used_ = 0;
  size_t swept_ = 0;
};

}  // namespace ringway::port
