#include "ringway/ring/split_driver.h"

#include <cassert>

#include "ringway/ring/each_buffer.h"

namespace ringway::ring {

SplitDriver::SplitDriver(const DriverConfig& config)
    : table_entries_(config.table_entries),
      order_(config.format.big_endian),
      mask_(static_cast<uint16_t>(config.size - 1)),
      event_idx_(config.format.event_idx),
      in_order_(config.format.in_order),
      avail_(config.base.avail),
      published_(config.base.avail),
      taken_(config.base.avail),
      seen_used_(config.base.avail),
      free_(config.size),
      tokens_(config.size, config.format.in_order),
      known_(config.size),
      known_tables_(size_t{config.size} * config.table_entries),
      known_avail_(config.size),
      next_(config.size) {
  const DriverLayout layout = config.layout();
  desc_ = config.area + layout.desc;
  driver_ = config.area + layout.driver;
  device_ = config.area + layout.device;
  tables_ = config.area + layout.tables;
  tables_address_ = {config.address.value + layout.tables};
  table_bytes_ = layout.table_bytes;
  for (uint32_t i = 0; i < config.size; ++i) next_[i] = static_cast<uint16_t>((i + 1) & mask_);
  order_.store<uint16_t>(driver_ + index_at, avail_);
  order_.store<uint16_t>(device_ + index_at, avail_);
  if (!event_idx_) return;
  order_.store<uint16_t>(driver_ + entries_at + size() * avail_entry_bytes, avail_);
  order_.store<uint16_t>(device_ + entries_at + size() * used_entry_bytes, avail_);
}

uint16_t SplitDriver::add(const Buffers& buffers, uint32_t needed) {
  assert(needed > 0 && needed <= size());
  const uint16_t head = free_head_;
  uint16_t last = head;
  if (takes_table(buffers)) {
    write_table(head, buffers);
  } else {
    last = write_chain(head, buffers);
  }
  free_head_ = next_[last];
  free_ -= needed;
  tokens_.add(head, needed, last, buffers.writable_bytes());
  make_available(head);
  return head;
}

void SplitDriver::make_available(uint16_t head) {
  const uint16_t slot = avail_++ & mask_;
  if (known_avail_[slot] == head) return;
  order_.store<uint16_t>(driver_ + entries_at + slot * avail_entry_bytes, head);
  known_avail_[slot] = head;
}

uint16_t SplitDriver::write_chain(uint16_t head, const Buffers& buffers) {
  uint16_t at = head;
  each_buffer(buffers, [&](const Buffer& buffer, uint16_t flags, bool is_last) {
    if (!is_last) flags |= VRING_DESC_F_NEXT;
    write(entry(at), known_[at], {buffer.address.value, buffer.length, flags, next_[at]});
    if (!is_last) at = next_[at];
  });
  return at;
}

void SplitDriver::write_table(uint16_t head, const Buffers& buffers) {
  const uint64_t offset = head * table_bytes_;
  std::byte* at = tables_ + offset;
  Descriptor* known = known_tables_.data() + size_t{head} * table_entries_;
  uint16_t index = 0;
  each_buffer(buffers, [&](const Buffer& buffer, uint16_t flags, bool is_last) {
    if (!is_last) flags |= VRING_DESC_F_NEXT;
    write(at, *known++, {buffer.address.value, buffer.length, flags, ++index});
    at += descriptor_bytes;
  });
  const auto bytes = static_cast<uint32_t>(index * descriptor_bytes);
  write(entry(head), known_[head], {tables_address_.value + offset, bytes, VRING_DESC_F_INDIRECT, 0});
}

void SplitDriver::write(std::byte* at, Descriptor& known, const Descriptor& descriptor) const {
  if (known == descriptor) return;
  order_.store_descriptor(at, descriptor);
  known = descriptor;
}

bool SplitDriver::publish() {
  if (tokens_.unpublished() == 0) return false;
  const uint16_t before = std::exchange(published_, avail_);
  tokens_.publish();
  order_.store<uint16_t>(driver_ + index_at, avail_, std::memory_order_release);
  full_fence();
  if (!event_idx_) return (order_.load<uint16_t>(device_ + flags_at) & VRING_USED_F_NO_NOTIFY) == 0;
  return passed(order_.load<uint16_t>(device_ + entries_at + size() * used_entry_bytes), before, avail_);
}

Result<std::optional<Used>> SplitDriver::take_used() {
  if (broken_) return std::unexpected(*broken_);
  if (tokens_.accepted() == 0) {
    const Result<bool> any = look();
    if (!any) {
      broken_ = any.error();
      return std::unexpected(*broken_);
    }
    if (!*any) return std::nullopt;
  }
  const Used used = tokens_.take();
  ++taken_;
  release(used.token);
  return used;
}

Result<bool> SplitDriver::look() {
  if (taken_ == seen_used_) {
    seen_used_ = order_.load<uint16_t>(device_ + index_at, std::memory_order_acquire);
    if (taken_ == seen_used_) return false;
    if (static_cast<uint16_t>(seen_used_ - taken_) > tokens_.outstanding()) {
      return violation("used index moved beyond what is in flight", seen_used_);
    }
  }
  return accept_next();
}

Result<bool> SplitDriver::accept_next() {
  const std::byte* const at = device_ + entries_at + (taken_ & mask_) * used_entry_bytes;
  TRY(tokens_.accept(order_.load<uint32_t>(at), order_.load<uint32_t>(at + 4)));
  if (tokens_.accepted() > static_cast<uint16_t>(seen_used_ - taken_)) {
    return violation("used id is ahead of the used index", seen_used_);
  }
  return true;
}

// In order, descriptors stay in ring order and the list of free ones is the ring itself.
void SplitDriver::release(uint16_t head) {
  const Tokens::Entry& entry = tokens_.last_of(head);
  free_ += entry.descriptors;
  if (in_order_) return;
  next_[entry.last] = free_head_;
  free_head_ = head;
}

void SplitDriver::disable_calls() {
  if (event_idx_) {
    // Behind us: passed again only after a whole turn of the index.
    order_.store<uint16_t>(driver_ + entries_at + size() * avail_entry_bytes,
                           static_cast<uint16_t>(taken_ - 1));
  } else {
    order_.store<uint16_t>(driver_ + flags_at, VRING_AVAIL_F_NO_INTERRUPT);
  }
}

bool SplitDriver::enable_calls() {
  if (event_idx_) {
    order_.store<uint16_t>(driver_ + entries_at + size() * avail_entry_bytes, taken_);
  } else {
    order_.store<uint16_t>(driver_ + flags_at, 0);
  }
  full_fence();
  return tokens_.accepted() > 0 || order_.load<uint16_t>(device_ + index_at) != taken_;
}

}  // namespace ringway::ring
