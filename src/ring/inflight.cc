#include "ringway/ring/inflight.h"

#include <algorithm>
#include <bit>
#include <compare>
#include <cstring>

namespace ringway::ring {
namespace {

// The beginning of both regions.
constexpr size_t features_at = 0;
constexpr size_t version_at = 8;
constexpr size_t desc_num_at = 10;
constexpr uint16_t our_version = 1;  // 0: nobody has used it
constexpr uint64_t region_alignment = 64;

template <class T>
T field(std::span<const std::byte> copy, size_t at) {
  T value;
  std::memcpy(&value, copy.data() + at, sizeof value);
  return value;
}

std::vector<std::byte> read_once(const memory::Window& region, uint64_t bytes) {
  std::vector<std::byte> copy(bytes);
  memory::copy_out(copy.data(), region.data(), copy.size());
  return copy;
}

Result<> check_version(std::span<const std::byte> copy) {
  const auto version = field<uint16_t>(copy, version_at);
  if (version != our_version) return refused("in-flight area has another version", version);
  const auto features = field<uint64_t>(copy, features_at);
  if (features != 0) return refused("in-flight area has features", features);
  return {};
}

std::unexpected<Error> contradiction(uint64_t about) {
  return refused("in-flight area contradicts itself", about);
}

struct Counted {
  uint64_t counter;
  uint16_t entry;
  auto operator<=>(const Counted&) const = default;
};

// Oldest first; entries that claim the same place in the order of the table.
void sort_by_counter(std::vector<Counted>& entries) { std::ranges::sort(entries); }

}  // namespace

uint64_t inflight_bytes(uint32_t size, bool packed) {
  const uint64_t bytes = packed ? PackedInflight::header_bytes + size * PackedInflight::entry_bytes
                                : SplitInflight::header_bytes + size * SplitInflight::entry_bytes;
  return (bytes + region_alignment - 1) / region_alignment * region_alignment;
}

// ---- split

Result<std::unique_ptr<SplitInflight>> SplitInflight::open(const memory::Window& region, uint32_t size,
                                                           uint16_t used) {
  std::unique_ptr<SplitInflight> self(new SplitInflight(region.data(), size));
  std::vector<std::byte> copy = read_once(region, header_bytes + uint64_t{size} * entry_bytes);
  if (field<uint16_t>(copy, version_at) == 0) {
    self->make(size, used);
  } else {
    TRY(self->recover(copy, size, used));
  }
  return self;
}

void SplitInflight::make(uint32_t size, uint16_t used) {
  pass(Failpoint::make_begin);
  const std::vector<std::byte> zeros(header_bytes + uint64_t{size} * entry_bytes);
  memory::copy_in(base_, zeros.data(), zeros.size());
  memory::store<uint16_t>(base_ + desc_num_at, static_cast<uint16_t>(size));
  memory::store<uint16_t>(base_ + used_index_at, used);
  pass(Failpoint::make_written);
  memory::store<uint16_t>(base_ + version_at, our_version, std::memory_order_release);
  pass(Failpoint::make_end);
}

Result<> SplitInflight::recover(std::span<std::byte> copy, uint32_t size, uint16_t used) {
  TRY(check_version(copy));
  pass(Failpoint::split_recover_begin);
  if (const auto entries = field<uint16_t>(copy, desc_num_at); entries != size)
    return refused("in-flight area is of another ring size", entries);
  last_batch_head_ = field<uint16_t>(copy, last_batch_head_at);
  TRY(repair(copy, size, used));
  pass(Failpoint::split_recover_repaired);
  collect(copy, size);
  pass(Failpoint::split_recover_end);
  return {};
}

// The last batch was shown to the driver and may still be marked as in flight.
Result<> SplitInflight::repair(std::span<std::byte> copy, uint32_t size, uint16_t used) {
  const auto noted = field<uint16_t>(copy, used_index_at);
  const uint32_t batch = static_cast<uint16_t>(used - noted);
  if (batch == 0) return {};
  if (batch > size) return refused("in-flight area is of another used index", noted);
  uint16_t head = last_batch_head_;
  for (uint32_t i = 0; i < batch; ++i) {
    if (head >= size) return contradiction(head);
    copy[header_bytes + head * entry_bytes] = std::byte{0};
    memory::store<uint8_t>(entry(head), 0);
    pass(Failpoint::split_recover_clearing);
    head = field<uint16_t>(copy, header_bytes + head * entry_bytes + next_at);
  }
  pass(Failpoint::split_recover_cleared);
  memory::store<uint16_t>(base_ + used_index_at, used, std::memory_order_release);
  return {};
}

void SplitInflight::collect(std::span<const std::byte> copy, uint32_t size) {
  std::vector<Counted> found;
  for (uint32_t head = 0; head < size; ++head) {
    const std::span<const std::byte> one = copy.subspan(header_bytes + head * entry_bytes, entry_bytes);
    if (one[0] == std::byte{0}) continue;
    found.push_back({.counter = field<uint64_t>(one, counter_at), .entry = static_cast<uint16_t>(head)});
  }
  sort_by_counter(found);
  for (const Counted& one : found) again_.push_back(one.entry);
  if (!found.empty()) counter_ = first_counter_ = found.back().counter + 1;
  again_left_ = static_cast<uint32_t>(again_.size());
}

void SplitInflight::publish() {
  pass(Failpoint::split_publish_begin);
  memory::store<uint16_t>(base_ + last_batch_head_at, last_batch_head_, std::memory_order_release);
  pass(Failpoint::split_publish_headed);
}

void SplitInflight::published(uint16_t used) {
  pass(Failpoint::split_publish_shown);
  for (const uint16_t head : std::span(batch_).first(batch_size_)) {
    memory::store<uint8_t>(entry(head), 0);
    pass(Failpoint::split_publish_clearing);
  }
  batch_size_ = 0;
  pass(Failpoint::split_publish_cleared);
  memory::store<uint16_t>(base_ + used_index_at, used, std::memory_order_release);
  pass(Failpoint::split_publish_end);
}

// ---- packed

// A private copy of the region.
class PackedInflight::Image {
 public:
  explicit Image(std::vector<std::byte> copy) : copy_(std::move(copy)) {}
  [[nodiscard]] std::span<const std::byte> all() const { return copy_; }
  [[nodiscard]] uint16_t free_head() const { return field<uint16_t>(copy_, heads_at); }
  [[nodiscard]] uint16_t old_free_head() const { return field<uint16_t>(copy_, heads_at + 2); }
  [[nodiscard]] PackedPlace used() const { return place(0); }
  [[nodiscard]] PackedPlace old_used() const { return place(1); }
  [[nodiscard]] bool in_flight(uint16_t entry) const { return of<uint8_t>(entry, 0) != 0; }
  template <class T>
  [[nodiscard]] T of(uint16_t entry, size_t at) const {
    return field<T>(copy_, header_bytes + entry * entry_bytes + at);
  }
  [[nodiscard]] Descriptor descriptor(uint16_t entry) const {
    return {.address = of<uint64_t>(entry, addr_at),
            .length = of<uint32_t>(entry, len_at),
            .flags = of<uint16_t>(entry, flags_at),
            .last = of<uint16_t>(entry, id_at)};
  }

 private:
  [[nodiscard]] PackedPlace place(size_t which) const {
    return {.position = field<uint16_t>(copy_, places_at + 2 * which),
            .wrap = field<uint8_t>(copy_, places_at + 4 + which) != 0};
  }
  std::vector<std::byte> copy_;
};

Result<std::unique_ptr<PackedInflight>> PackedInflight::open(const memory::Window& region, uint32_t size,
                                                             std::byte* desc, const PackedPlace& fresh) {
  std::unique_ptr<PackedInflight> self(new PackedInflight(region.data(), size));
  const Image image(read_once(region, header_bytes + uint64_t{size} * entry_bytes));
  if (field<uint16_t>(image.all(), version_at) == 0) {
    self->make(fresh);
  } else {
    TRY(self->recover(image, desc));
  }
  return self;
}

void PackedInflight::make(const PackedPlace& fresh) {
  pass(Failpoint::make_begin);
  const std::vector<std::byte> zeros(header_bytes + uint64_t{size_} * entry_bytes);
  memory::copy_in(base_, zeros.data(), zeros.size());
  for (uint32_t i = 0; i < size_; ++i) {
    next_[i] = static_cast<uint16_t>(i + 1);
    memory::store<uint16_t>(entry(i) + next_at, next_[i]);
  }
  start_ = used_ = fresh;
  memory::store<uint16_t>(base_ + desc_num_at, static_cast<uint16_t>(size_));
  store_heads(free_head_);
  store_places(used_);
  pass(Failpoint::make_written);
  memory::store<uint16_t>(base_ + version_at, our_version, std::memory_order_release);
  pass(Failpoint::make_end);
}

Result<> PackedInflight::recover(const Image& image, std::byte* desc) {
  TRY(check_version(image.all()));
  pass(Failpoint::packed_recover_begin);
  if (const auto entries = field<uint16_t>(image.all(), desc_num_at); entries != size_)
    return refused("in-flight area is of another ring size", entries);
  TRY(settle(image, desc));
  std::vector<bool> known(size_);
  TRY(read_free_list(image, known));
  TRY(read_chains(image, known));
  if (std::ranges::count(known, true) != size_) return contradiction(size_);
  hide_unpublished(desc);
  pass(Failpoint::packed_recover_end);
  return {};
}

// An update that was begun is completed if the driver can see the batch, and rolled back if it cannot.
Result<> PackedInflight::settle(const Image& image, const std::byte* desc) {
  const PackedPlace old = image.old_used();
  if (old.position >= size_ || image.used().position >= size_) return contradiction(old.position);
  used_ = old;
  free_head_ = image.old_free_head();
  if (image.used() != old) {
    const auto flags = memory::load<uint16_t>(desc + old.position * descriptor_bytes + packed_flags_at,
                                              std::memory_order_acquire);
    if (!has_packed_flags(ByteOrder()(flags), old.available_flags())) {
      used_ = image.used();
      free_head_ = image.free_head();
    }
  }
  start_ = used_;
  store_heads(free_head_);
  pass(Failpoint::packed_recover_listed);
  store_places(used_);
  pass(Failpoint::packed_recover_repaired);
  return {};
}

Result<> PackedInflight::read_free_list(const Image& image, std::vector<bool>& known) {
  uint16_t at = free_head_;
  while (at < size_) {
    if (known[at]) return contradiction(at);
    known[at] = true;
    next_[at] = image.of<uint16_t>(at, next_at);
    if (image.in_flight(at)) {
      memory::store<uint8_t>(entry(at), 0);
      pass(Failpoint::packed_recover_freeing);
    }
    at = next_[at];
  }
  return {};
}

Result<> PackedInflight::read_chains(const Image& image, std::vector<bool>& known) {
  std::vector<Counted> found;
  for (uint32_t i = 0; i < size_; ++i) {
    const auto at = static_cast<uint16_t>(i);
    if (known[at] || !image.in_flight(at)) continue;
    found.push_back({.counter = image.of<uint64_t>(at, counter_at), .entry = at});
  }
  sort_by_counter(found);
  for (const Counted& one : found) TRY(read_chain(image, one.entry, known));
  if (!found.empty()) counter_ = found.back().counter + 1;
  return {};
}

Result<> PackedInflight::read_chain(const Image& image, uint16_t first, std::vector<bool>& known) {
  Taken& chain = taken_[first];
  chain.num = image.of<uint16_t>(first, num_at);
  if (chain.num == 0 || chain.num > size_) return contradiction(chain.num);
  uint16_t at = first;
  for (uint32_t i = 0; i < chain.num; ++i) {
    if (at >= size_ || known[at]) return contradiction(at);
    known[at] = true;
    chain.last = at;
    again_.push_back(image.descriptor(at));
    if (again_.back().continues() != (i + 1U < chain.num)) return contradiction(at);
    at = next_[at] = image.of<uint16_t>(at, next_at);
  }
  const uint16_t id = again_.back().last;
  if (id >= size_ || first_of_[id] != size_) return contradiction(id);
  first_of_[id] = first;
  return {};
}

// Entries behind the first of a batch may say that they are used although the batch was never shown. The
// driver looks at them only behind one that is shown, which now may be followed by others than those.
void PackedInflight::hide_unpublished(std::byte* desc) const {
  PackedPlace place = used_;
  for (size_t i = 0; i < again_.size(); ++i) {
    std::byte* const flags = desc + place.position * descriptor_bytes + packed_flags_at;
    memory::store<uint16_t>(flags, ByteOrder()(place.available_flags()));
    pass(Failpoint::packed_recover_hiding);
    place.advance(1, size_);
  }
}

void PackedInflight::note(uint16_t id, uint32_t position, uint32_t count) {
  pass(Failpoint::packed_take_begin);
  const uint16_t first = free_head_;
  Taken& chain = taken_[first];
  for (uint32_t i = 0; i < count; ++i) {
    assert(free_head_ < size_);
    std::byte* const at = entry(free_head_);
    const Descriptor& from = walked_[position];
    memory::store<uint16_t>(at + id_at, from.last);
    memory::store<uint16_t>(at + flags_at, from.flags);
    memory::store<uint32_t>(at + len_at, from.length);
    memory::store<uint64_t>(at + addr_at, from.address);
    chain.last = free_head_;
    free_head_ = next_[free_head_];
    if (++position == size_) position = 0;
  }
  chain.num = static_cast<uint16_t>(count);
  first_of_[id] = first;
  pass(Failpoint::packed_take_written);
  std::byte* const at = entry(first);
  memory::store<uint16_t>(at + last_at, chain.last);
  memory::store<uint16_t>(at + num_at, chain.num);
  memory::store<uint64_t>(at + counter_at, counter_++);
  memory::store<uint8_t>(at, 1, std::memory_order_release);
  pass(Failpoint::packed_take_marked);
  store_heads(free_head_);
  pass(Failpoint::packed_take_end);
}

// What the entries hold is forgotten with the store of the heads, and not before.
void PackedInflight::give_back(uint16_t id) {
  const uint16_t first = first_of_[id];
  const Taken& chain = taken_[first];
  popped_ -= chain.num;
  if (popped_ < again_.size()) return;  // it stays in flight, to be done again
  pass(Failpoint::packed_give_begin);
  next_[chain.last] = free_head_;
  memory::store<uint16_t>(entry(chain.last) + next_at, free_head_);
  pass(Failpoint::packed_give_linked);
  free_head_ = first;
  store_heads(free_head_);
  pass(Failpoint::packed_give_listed);
  memory::store<uint8_t>(entry(first), 0, std::memory_order_release);
  pass(Failpoint::packed_give_end);
}

void PackedInflight::publish(const PackedPlace& used) {
  const uint16_t old_free_head = free_head_;
  for (uint32_t i = 0; i < batch_size_; ++i) {
    const uint16_t first = batch_[i];
    const uint16_t last = taken_[first].last;
    next_[last] = free_head_;
    memory::store<uint16_t>(entry(last) + next_at, free_head_);
    pass(Failpoint::packed_publish_linking);
    free_head_ = first;
  }
  store_heads(old_free_head);
  pass(Failpoint::packed_publish_listed);
  const PackedPlace old = used_;
  used_ = used;
  store_places(old);
  pass(Failpoint::packed_publish_counted);
}

void PackedInflight::published() {
  pass(Failpoint::packed_publish_shown);
  for (uint32_t i = 0; i < batch_size_; ++i) {
    memory::store<uint8_t>(entry(batch_[i]), 0);
    pass(Failpoint::packed_publish_clearing);
  }
  batch_size_ = 0;
  pass(Failpoint::packed_publish_cleared);
  store_heads(free_head_);
  pass(Failpoint::packed_publish_freed);
  store_places(used_);
  pass(Failpoint::packed_publish_end);
}

// Both heads by one store, and both places by another: a crash leaves all of it or nothing.
void PackedInflight::store_heads(uint16_t old_free_head) {
  const std::array<uint16_t, 2> heads{free_head_, old_free_head};
  memory::store<uint32_t>(base_ + heads_at, std::bit_cast<uint32_t>(heads), std::memory_order_release);
}

void PackedInflight::store_places(const PackedPlace& old_used) {
  const std::array<uint8_t, 4> wraps{used_.wrap, old_used.wrap, 0, 0};
  const std::array<uint16_t, 4> places{static_cast<uint16_t>(used_.position),
                                       static_cast<uint16_t>(old_used.position),
                                       std::bit_cast<std::array<uint16_t, 2>>(wraps)[0], 0};
  memory::store<uint64_t>(base_ + places_at, std::bit_cast<uint64_t>(places), std::memory_order_release);
}

}  // namespace ringway::ring
