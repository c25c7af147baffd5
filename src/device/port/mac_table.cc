#include "ringway/device/port/mac_table.h"

#include <algorithm>
#include <bit>
#include <random>

namespace ringway::port {
namespace {

constexpr size_t swept_at_once = 16;  // buckets, each time that something is learned

uint64_t value_of(uint16_t station, uint32_t now) { return station | uint64_t{now} << 32; }

uint64_t random_number() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

auto free_in(const auto& bucket) {
  return std::ranges::count_if(bucket.entries, [](const auto& entry) { return entry.key.load() == 0; });
}

}  // namespace

// Half full at most, in buckets of four that each address may choose two of: seldom is one full, and then one
// of its addresses has room in its other bucket.
MacTable::MacTable(const Options& options)
    : options_(options),
      seed_{random_number(), random_number() | 1, random_number()},
      mask_(std::bit_ceil(std::max<size_t>(options.limit / 2, 2)) - 1),
      buckets_(std::make_unique<Bucket[]>(mask_ + 1)),  // NOLINT
      held_by_(options.stations) {}

MacTable::Learned MacTable::learn(uint16_t vlan, Mac mac, uint16_t station, uint32_t now) {
  const uint64_t key = key_of(vlan, mac);
  if (Entry* entry = entry_of(key)) {
    uint64_t value = entry->value.load(std::memory_order_acquire);
    const bool same = entry->key.load(std::memory_order_relaxed) == key;
    if (same && station_of(value) == station && !is_old(value, now)) {
      // Fails if the entry has become another's meanwhile.
      if (seen(value) != now) entry->value.compare_exchange_strong(value, value_of(station, now));
      return Learned::known;
    }
    if (same && station_of(value) != station && now - seen(value) < hold) return Learned::held;
  }
  const std::scoped_lock lock(mutex_);
  sweep(now);
  Entry* entry = entry_of(key);
  return entry == nullptr ? add(key, station, now) : move(*entry, key, station, now);
}

MacTable::Learned MacTable::add(uint64_t key, uint16_t station, uint32_t now) {
  if (held_by_[station] >= options_.limit - used_) return Learned::refused;
  Entry* entry = free_entry(places(key));
  if (entry == nullptr) return Learned::refused;
  put(*entry, key, station, now);
  return Learned::fresh;
}

MacTable::Learned MacTable::move(Entry& entry, uint64_t key, uint16_t station, uint32_t now) {
  const uint64_t value = entry.value.load(std::memory_order_relaxed);
  const bool is_other = station_of(value) != station;
  if (is_other && now - seen(value) < hold) return Learned::held;
  if (is_other && held_by_[station] >= options_.limit - used_) return Learned::refused;
  remove(entry);
  put(entry, key, station, now);
  return Learned::fresh;
}

MacTable::Entry* MacTable::free_entry(const Places& both) {
  Bucket& emptier = free_in(*both.first) >= free_in(*both.second) ? *both.first : *both.second;
  if (Entry* entry = emptier.entry_of(0)) return entry;
  Entry* entry = make_room(*both.first);
  return entry != nullptr ? entry : make_room(*both.second);
}

// Of a full bucket: an address goes to its other bucket. It is in both for a moment; still, who looks for it
// just then may miss it once, and may note in vain that it has been seen.
MacTable::Entry* MacTable::make_room(Bucket& bucket) {
  for (Entry& entry : bucket.entries) {
    const uint64_t key = entry.key.load(std::memory_order_relaxed);
    const Places both = places(key);
    Entry* const free = (both.first == &bucket ? both.second : both.first)->entry_of(0);
    if (free == nullptr) continue;
    const uint64_t value = entry.value.load(std::memory_order_relaxed);
    put(*free, key, station_of(value), seen(value));
    remove(entry);
    return &entry;
  }
  return nullptr;
}

void MacTable::put(Entry& entry, uint64_t key, uint16_t station, uint32_t now) {
  entry.value.store(value_of(station, now), std::memory_order_release);
  entry.key.store(key, std::memory_order_release);
  ++held_by_[station];
  ++used_;
}

void MacTable::remove(Entry& entry) {
  entry.key.store(0, std::memory_order_release);
  --held_by_[station_of(entry.value.load(std::memory_order_relaxed))];
  --used_;
}

void MacTable::sweep(uint32_t now) {
  for (size_t i = 0; i < swept_at_once; ++i) {
    for (Entry& entry : buckets_[swept_++ & mask_].entries) {
      if (entry.key.load(std::memory_order_relaxed) != 0 &&
          is_old(entry.value.load(std::memory_order_relaxed), now))
        remove(entry);
    }
  }
}

void MacTable::forget(uint16_t station) {
  const std::scoped_lock lock(mutex_);
  for (size_t i = 0; i <= mask_; ++i) {
    for (Entry& entry : buckets_[i].entries) {
      if (entry.key.load() != 0 && station_of(entry.value.load()) == station) remove(entry);
    }
  }
}

size_t MacTable::size() const {
  const std::scoped_lock lock(mutex_);
  return used_;
}

}  // namespace ringway::port
