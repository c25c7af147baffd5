#include "ringway/ring/packed_driver.h"

#include <cassert>

#include "ringway/ring/each_buffer.h"

namespace ringway::ring {

PackedDriver::PackedDriver(const DriverConfig& config)
    : table_entries_(config.table_entries),
      size_(config.size),
      event_idx_(config.format.event_idx),
      avail_{.position = config.base.avail, .wrap = config.base.avail_wrap},
      used_(avail_),
      free_(config.size),
      tokens_(config.size, config.format.in_order),
      known_tables_(size_t{config.size} * config.table_entries) {
  const DriverLayout layout = config.layout();
  desc_ = config.area + layout.desc;
  driver_ = config.area + layout.driver;
  device_ = config.area + layout.device;
  tables_ = config.area + layout.tables;
  tables_address_ = {config.address.value + layout.tables};
  table_bytes_ = layout.table_bytes;
  free_ids_.reserve(size_);
  for (uint32_t id = size_; id-- > 0;) free_ids_.push_back(static_cast<uint16_t>(id));
  // All entries look used: those behind the base in this lap, the others in the one before.
  for (uint32_t i = 0; i < size_; ++i) {
    const PackedPlace place{.position = i, .wrap = (i < avail_.position) == avail_.wrap};
    order_.store<uint16_t>(entry(place) + packed_flags_at, place.used_flags());
  }
}

uint16_t PackedDriver::add(const Buffers& buffers, uint32_t needed) {
  assert(needed > 0 && needed <= size_);
  const uint16_t id = free_ids_.back();
  free_ids_.pop_back();
  free_ -= needed;
  tokens_.add(id, needed, 0, buffers.writable_bytes());
  if (takes_table(buffers)) {
    write_table(id, buffers);
  } else {
    write_chain(id, buffers);
  }
  unpublished_ += needed;
  return id;
}

// The head is written last: a device may look as soon as it is there.
void PackedDriver::write_chain(uint16_t id, const Buffers& buffers) {
  const PackedPlace head = avail_;
  PackedPlace place = head;
  Descriptor first;
  each_buffer(buffers, [&](const Buffer& buffer, uint16_t flags, bool is_last) {
    if (!is_last) flags |= VRING_DESC_F_NEXT;
    flags |= place.available_flags();
    const Descriptor descriptor{buffer.address.value, buffer.length, flags, id};
    if (place == head) {
      first = descriptor;
    } else {
      order_.store_descriptor(entry(place), descriptor.swapped_end());
    }
    place.advance(1, size_);
  });
  write_head(first);
  avail_ = place;
}

void PackedDriver::write_table(uint16_t id, const Buffers& buffers) {
  const uint64_t offset = id * table_bytes_;
  std::byte* at = tables_ + offset;
  Descriptor* known = known_tables_.data() + size_t{id} * table_entries_;
  uint32_t index = 0;
  each_buffer(buffers, [&](const Buffer& buffer, uint16_t flags, bool) {
    const Descriptor descriptor{buffer.address.value, buffer.length, flags, 0};
    if (*known != descriptor) order_.store_descriptor(at, descriptor.swapped_end());
    *known++ = descriptor;
    at += descriptor_bytes;
    ++index;
  });
  const auto flags = static_cast<uint16_t>(VRING_DESC_F_INDIRECT | avail_.available_flags());
  const auto bytes = static_cast<uint32_t>(index * descriptor_bytes);
  write_head({tables_address_.value + offset, bytes, flags, id});
  avail_.advance(1, size_);
}

void PackedDriver::write_head(const Descriptor& head) {
  std::byte* const at = entry(avail_);
  order_.store<uint64_t>(at, head.address);
  order_.store<uint32_t>(at + packed_length_at, head.length);
  order_.store<uint16_t>(at + packed_id_at, head.last);
  if (unpublished_ == 0) {
    held_ = at;
    held_flags_ = head.flags;
  } else {
    order_.store<uint16_t>(at + packed_flags_at, head.flags);
  }
}

bool PackedDriver::publish() {
  if (unpublished_ == 0) return false;
  tokens_.publish();
  order_.store<uint16_t>(held_ + packed_flags_at, held_flags_, std::memory_order_release);
  full_fence();
  const PackedEvent event{order_.load<uint32_t>(device_)};
  const uint32_t count = std::exchange(unpublished_, 0);
  PackedPlace before = avail_;
  before.retreat(count, size_);
  return event.wants(before, count, size_, event_idx_);
}

Result<std::optional<Used>> PackedDriver::take_used() {
  if (broken_) return std::unexpected(*broken_);
  if (tokens_.accepted() == 0) {
    if (tokens_.outstanding() == 0 || !is_used()) return std::nullopt;
    const std::byte* const at = entry(used_);
    const Result<> accepted = tokens_.accept(order_.load<uint16_t>(at + packed_id_at),
                                             order_.load<uint32_t>(at + packed_length_at));
    if (!accepted) {
      broken_ = accepted.error();
      return std::unexpected(*broken_);
    }
  }
  const Used used = tokens_.take();
  const uint16_t id = used.token;
  const uint32_t entries = tokens_.last_of(id).descriptors;
  used_.advance(entries, size_);
  free_ += entries;
  free_ids_.push_back(id);
  return used;
}

bool PackedDriver::is_used() const {
  const auto flags = order_.load<uint16_t>(entry(used_) + packed_flags_at, std::memory_order_acquire);
  return has_packed_flags(flags, used_.used_flags());
}

void PackedDriver::disable_calls() { order_.store<uint32_t>(driver_, PackedEvent::never().raw); }

bool PackedDriver::enable_calls() {
  order_.store<uint32_t>(driver_, event_idx_ ? PackedEvent::at(used_).raw : PackedEvent::always().raw);
  full_fence();
  return tokens_.accepted() > 0 || (tokens_.outstanding() > 0 && is_used());
}

}  // namespace ringway::ring
