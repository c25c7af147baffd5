// Chains: all chains of one ring from walked to ended, with their pieces and memory snapshots; what split and
// packed rings have in common. Owned by the ring's thread. Nothing is allocated after start, except by
// set_view().
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/memory/shared_bytes.h"
#include "ringway/ring/chain.h"
#include "ringway/ring/gather.h"
#include "ringway/ring/ring_log.h"

namespace ringway::ring {

// Chains longer than this many pieces, and indirect tables with more entries, break the ring (VIRTIO lets a
// device limit them), unless the ring itself is longer.
inline constexpr uint32_t max_chain_pieces = 1024;

class Chains {
 public:
  // How many chains are walked before the first of them is popped: their cache misses overlap.
  static constexpr uint32_t look_ahead = 16;

  static Result<Chains> create(uint32_t size, bool in_order, memory::View view);

  // Filling: begin_fill(), then for each chain gather() and make_ready() or stop(), then end_fill().
  Result<> begin_fill();
  Gatherer gather() { return Gatherer(view_, {scratch_, max_pieces_}, table_room_); }
  // Without it gather() may not be called: too many long chains are in flight.
  [[nodiscard]] bool has_room() const { return scratch_ != nullptr; }
  // Starts to load what is_free() looks at and make_ready() writes.
  void prefetch_slot(uint16_t index) const { __builtin_prefetch(slots_ + index, 1); }
  [[nodiscard]] bool is_free(uint16_t index) const { return slots_[index].state == Slot::free; }
  void make_ready(uint16_t index, const Gatherer& gathered, uint32_t descriptors);
  // The usual chain of a network device, without gathering: one descriptor whose buffer is in one piece.
  // False if it is not, for whatever reason, or the index is busy: then it is to be gathered.
  [[nodiscard]] bool make_ready(uint16_t index, const Descriptor& only) {
    Slot& slot = slots_[index];
    if (slot.state != Slot::free) [[unlikely]]
      return false;
    const bool writable = only.writable();
    memory::Segments piece(std::span(slot.place, 1));
    const auto translation = view_.translate({only.address}, only.length,
                                             writable ? memory::Access::write : memory::Access::read, piece);
    if (translation.outcome != memory::Translation::ok || piece.size() == 0) [[unlikely]]
      return false;
    slot.readable = writable ? 0 : 1;
    slot.writable = writable ? 1 : 0;
    show(slot, index, 1);
    return true;
  }
  void stop(const Verdict& verdict, const Gatherer& gathered);
  // An error if there is one and nothing is ready before it.
  Result<> end_fill();
  // Starts to load the indirect table that `descriptor` refers to.
  void prefetch_table(const Descriptor& descriptor);

  [[nodiscard]] bool any_ready() const { return next_ready_ != end_ready_; }
  [[nodiscard]] uint32_t ready() const { return end_ready_ - next_ready_; }
  [[nodiscard]] const Slot& next_ready() const { return *ready_[next_ready_]; }
  // Something must be ready. After some of these, taken() with their number.
  Chain take() {
    Slot& slot = *ready_[next_ready_++];
    slot.state = Slot::flying;
    slot.generation = current_;
    if (order_ != nullptr) [[unlikely]] {
      order_[order_end_] = slot.index;
      order_end_ = behind(order_end_);
      ++ordered_;
    }
    return Chain(slot);
  }
  void taken(uint32_t count) {
    generations_[current_].in_flight += count;
    in_flight_ += count;
  }
  // Forgets what is ready: it is walked again when it is wanted. Returns the ring entries that it takes.
  uint32_t drop_ready();

  // Ends a popped chain, into which so many bytes were written.
  void end(Slot& slot, uint32_t written) {
    if (written > 0) likely_written_ = written;
    if (log_ != nullptr) [[unlikely]]
      log_->wrote(slot, generations_[slot.generation].view.map(), beside(slot));
    finish(slot);
  }
  // Ends a popped chain that will never be used. Where order matters, nothing behind it could be used either:
  // from here on order does not matter, and what was waiting for its turn ends too.
  void abandon(Slot& slot);
  // The same as end() for the chain that was popped last and is not to count as popped.
  void take_back(Slot& slot) {
    if (order_ != nullptr) {
      order_end_ = (order_end_ == 0 ? size_ : order_end_) - 1;
      --ordered_;
    }
    finish(slot);
  }
  [[nodiscard]] bool in_order() const { return order_ != nullptr; }
  // In order: whether a popped chain is the one behind the `number` oldest.
  [[nodiscard]] bool is_ordered(const Slot& slot, uint32_t number) const {
    uint32_t position = order_begin_ + number;
    if (position >= size_) position -= size_;
    return number < ordered_ && order_[position] == slot.index;
  }
  // In order: notes that a chain is used before its turn; oldest_done() gives it when that has come.
  void mark_done(Slot& slot, uint32_t written) {
    slot.state = Slot::done;
    slot.written = written;
  }
  Slot* oldest_done() {
    if (ordered_ == 0) return nullptr;
    Slot& slot = slots_[order_[order_begin_]];
    if (slot.state != Slot::done) return nullptr;
    drop_oldest();
    return &slot;
  }
  // In order: whether the oldest ones are these, so that the last of them can stand for all. What is skipped
  // counts as written completely, so nothing may be writable. VIRTIO "In-order use of descriptors".
  [[nodiscard]] bool may_skip(std::span<const Chain> chains) const {
    if (order_ == nullptr || chains.size() < 2) return false;
    for (uint32_t i = 0; i < chains.size(); ++i) {
      const Slot& slot = chains[i].slot();
      if (slot.writable > 0 || !is_ordered(slot, i)) return false;
    }
    return true;
  }
  // Ends them but the last, whose entry comes where the first one's would. Returns the ring entries of those.
  uint32_t skip(std::span<Chain> chains) {
    uint32_t entries = 0;
    for (Chain& chain : chains.first(chains.size() - 1)) {
      Slot& slot = chain.end();
      entries += slot.descriptors;
      drop_oldest();
      end(slot, 0);
    }
    return entries;
  }
  void drop_oldest() {
    order_begin_ = behind(order_begin_);
    --ordered_;
  }

  void set_view(memory::View view);
  // What is written from here on is logged, or is not (none). Nothing may be in flight if it was not before.
  // What is ready must have been dropped.
  void set_log(std::unique_ptr<RingLog> log);
  // So many bytes at the beginning of what is written most often are there already, and are only compared: a
  // line that holds nothing else is not taken away from the driver.
  void set_steady(size_t bytes) { steady_ = bytes; }
  // None: nothing is logged.
  [[nodiscard]] RingLog* log() const { return log_.get(); }
  [[nodiscard]] const std::optional<memory::Translation>& missing() const { return missing_; }
  [[nodiscard]] bool broken() const { return broken_; }
  [[nodiscard]] uint32_t in_flight() const { return in_flight_; }

 private:
  // A memory snapshot, kept while a chain's pieces point into it.
  struct Generation {
    memory::View view;
    uint32_t in_flight = 0;
  };
  static constexpr size_t cache_line = 64;  // bytes
  static constexpr size_t most_prefetched = 24 * cache_line;
  Chains() = default;
  // A slot that has its pieces can be popped.
  void show(Slot& slot, uint16_t index, uint32_t descriptors) {
    slot.descriptors = static_cast<uint16_t>(descriptors);
    slot.index = index;
    slot.state = Slot::ready;
    if (log_ != nullptr) [[unlikely]]
      log_->keep(slot, beside(slot));
    const iovec& first = *slot.pieces();
    if (slot.readable > 0) {
      prefetch_to_read(first);
    } else {
      prefetch_to_write(first);
    }
    ready_[end_ready_++] = &slot;
  }
  // A small request, or a short packet behind its header, is in one or two cache lines. The processor sees by
  // itself how more are read.
  static void prefetch_to_read(const iovec& piece) {
    __builtin_prefetch(piece.iov_base);
    if (piece.iov_len > cache_line)
      __builtin_prefetch(static_cast<const std::byte*>(piece.iov_base) + cache_line);
  }
  // As much of a buffer as probably will be written: a store waits for each line by itself.
  void prefetch_to_write(const iovec& piece) const {
    const auto* const base = static_cast<const std::byte*>(piece.iov_base);
    const size_t length = std::min<size_t>({piece.iov_len, likely_written_, most_prefetched});
    const size_t in_first = cache_line - (reinterpret_cast<uintptr_t>(base) & (cache_line - 1));
    if (in_first <= steady_) {
      __builtin_prefetch(base);
    } else {
      memory::prefetch_for_store(base);
    }
    for (size_t at = in_first; at < length; at += cache_line) memory::prefetch_for_store(base + at);
  }
  void release(Slot& slot) {
    if (slot.spilled) [[unlikely]]
      free_block(slot.pieces());
    slot.spilled = false;
    slot.state = Slot::free;
  }
  // In the ring of `order_`: no division, for it is done for every chain.
  [[nodiscard]] uint32_t behind(uint32_t position) const { return position + 1 == size_ ? 0 : position + 1; }
  void finish(Slot& slot) {
    release(slot);
    Generation& generation = generations_[slot.generation];
    --in_flight_;
    if (--generation.in_flight == 0 && slot.generation != current_) [[unlikely]]
      generation.view = {};
  }
  // The second half of a long chain's block.
  [[nodiscard]] iovec* beside(Slot& slot) const {
    return slot.spilled ? slot.pieces() + max_pieces_ : nullptr;
  }
  [[nodiscard]] iovec* new_block();
  void free_block(iovec* block);

  uint32_t size_ = 0;        // of the ring, in entries
  uint32_t max_pieces_ = 0;  // of a chain; a block holds as many, and once more for the log
  uint32_t in_flight_ = 0;
  uint32_t likely_written_ = 0;  // into the next chain: what the last one got, bytes
  size_t steady_ = 0;            // see set_steady()
  uint16_t current_ = 0;         // generation
  uint16_t next_ready_ = 0;
  uint16_t end_ready_ = 0;
  bool broken_ = false;  // failure_ has been reported
  std::array<Slot*, look_ahead> ready_{};
  Slot* slots_ = nullptr;      // one per ring entry
  uint16_t* order_ = nullptr;  // in order: indices of the popped chains, a ring of `size_`
  uint32_t order_begin_ = 0;
  uint32_t order_end_ = 0;
  uint32_t ordered_ = 0;  // chains from begin to end
  iovec* scratch_ =
      nullptr;  // the block that is gathered into; given away when a chain does not fit its slot
  iovec* free_blocks_ = nullptr;
  iovec* fresh_blocks_ = nullptr;  // never touched, up to end_of_blocks_
  iovec* end_of_blocks_ = nullptr;
  memory::View view_;
  std::vector<Generation> generations_;
  std::vector<iovec> table_room_;
  std::optional<Error> failure_;
  std::optional<memory::Translation> missing_;
  std::unique_ptr<RingLog> log_;
  Mapping storage_;  // slots, order, blocks
};

}  // namespace ringway::ring
