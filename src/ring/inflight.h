// Inflight: what a ring notes of the chains that it has taken, in memory that outlives the process, so that a
// successor does again what was not finished, in order, and nothing else. Owned by the ring's thread.
// vhost-user "Inflight I/O tracking"; the names of fields and steps are those of the specification.
//
// The front-end can write the area too. It is read once, when a ring starts, and judged as a whole; from then
// on it is only written. All that hostile contents can do is that this ring does not start, or serves the
// driver requests that it did not make.
//
// The ring calls take() when a chain is popped, use() when it is pushed, and the functions of publishing
// around the store that shows a batch to the driver. A process may be killed between any two stores.
#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ringway/base/failpoint.h"
#include "ringway/memory/view.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {

// Bytes of the region of one queue in an area, by which the next queue's begins.
[[nodiscard]] uint64_t inflight_bytes(uint32_t size, bool packed);
inline constexpr size_t inflight_alignment = 8;

// QueueRegionSplit.
class SplitInflight {
 public:
  // Takes the region over, or makes it if nobody has. `used` is the index of the used ring, read once.
  // Refuses a region that contradicts itself or the ring.
  static Result<std::unique_ptr<SplitInflight>> open(const memory::Window& region, uint32_t size,
                                                     uint16_t used);

  // Chains that are to be popped before any other because a predecessor has popped them and not used them:
  // the first so many of a ring that starts at its used index.
  [[nodiscard]] uint32_t again() const { return again_left_; }
  // The head of the one that is popped after `ahead` < again() others.
  [[nodiscard]] uint16_t head_again(uint32_t ahead) const {
    return again_[again_.size() - again_left_ + ahead];
  }

  void take(uint16_t head) {
    if (again_left_ > 0) [[unlikely]] {
      --again_left_;
      return;
    }
    pass(Failpoint::split_take_begin);
    std::byte* const at = entry(head);
    memory::store<uint64_t>(at + counter_at, counter_++);
    pass(Failpoint::split_take_counted);
    memory::store<uint8_t>(at, 1, std::memory_order_release);
    pass(Failpoint::split_take_end);
  }
  // The chain that was taken last was not touched.
  void give_back(uint16_t head) {
    if (counter_ == first_counter_) {  // it stays in flight, to be done again
      ++again_left_;
      return;
    }
    pass(Failpoint::split_give_begin);
    --counter_;
    memory::store<uint8_t>(entry(head), 0, std::memory_order_release);
    pass(Failpoint::split_give_end);
  }
  void use(uint16_t head) {
    pass(Failpoint::split_use_begin);
    memory::store<uint16_t>(entry(head) + next_at, last_batch_head_);
    last_batch_head_ = head;
    pass(Failpoint::split_use_linked);
    if (batch_size_ < batch_.size()) batch_[batch_size_++] = head;  // a lying driver uses heads twice
    pass(Failpoint::split_use_end);
  }
  // Before the driver can see the batch, and after: `used` is the new index.
  void publish();
  void published(uint16_t used);

 private:
  static constexpr size_t header_bytes = 16;
  static constexpr size_t entry_bytes = 16;
  static constexpr size_t last_batch_head_at = 12;
  static constexpr size_t used_index_at = 14;
  static constexpr size_t next_at = 6;  // in an entry, whose first byte is `inflight`
  static constexpr size_t counter_at = 8;
  friend uint64_t inflight_bytes(uint32_t size, bool packed);

  SplitInflight(std::byte* base, uint32_t size) : base_(base), batch_(size) {}
  [[nodiscard]] std::byte* entry(uint16_t head) const { return base_ + header_bytes + head * entry_bytes; }
  void make(uint32_t size, uint16_t used);
  Result<> recover(std::span<std::byte> copy, uint32_t size, uint16_t used);
  Result<> repair(std::span<std::byte> copy, uint32_t size, uint16_t used);
  void collect(std::span<const std::byte> copy, uint32_t size);

  std::byte* base_;
  uint64_t counter_ = 0;        // of the chain that is taken next
  uint64_t first_counter_ = 0;  // of the first that was not taken by a predecessor
  uint32_t again_left_ = 0;
  uint32_t batch_size_ = 0;
  uint16_t last_batch_head_ = 0;
  std::vector<uint16_t> batch_;  // heads that are used and not published
  std::vector<uint16_t> again_;  // heads
};

// QueueRegionPacked.
class PackedInflight {
 public:
  // As above. `desc` is the ring, `fresh` where it starts if nobody has used the region.
  static Result<std::unique_ptr<PackedInflight>> open(const memory::Window& region, uint32_t size,
                                                      std::byte* desc, const PackedPlace& fresh);

  // Where the ring starts, for both indices.
  [[nodiscard]] const PackedPlace& start() const { return start_; }
  // As above, in ring entries.
  [[nodiscard]] uint32_t again() const {
    return popped_ < again_.size() ? static_cast<uint32_t>(again_.size() - popped_) : 0;
  }
  [[nodiscard]] const Descriptor& descriptor_again(uint32_t ahead) const { return again_[popped_ + ahead]; }

  // What was read at a position of the ring, for take().
  void walked(uint32_t position, const Descriptor& descriptor) { walked_[position] = descriptor; }
  // A chain of `count` descriptors from `position` on, whose buffer id is `id`.
  void take(uint16_t id, uint32_t position, uint32_t count) {
    popped_ += count;
    if (popped_ <= again_.size()) [[unlikely]]
      return;
    note(id, position, count);
  }
  void give_back(uint16_t id);
  void use(uint16_t id) {
    pass(Failpoint::packed_use_begin);
    batch_[batch_size_++] = first_of_[id];
    pass(Failpoint::packed_use_end);
  }
  // Before the driver can see the batch, and after; `used` is the new place.
  void publish(const PackedPlace& used);
  void published();

 private:
  static constexpr size_t header_bytes = 32;
  static constexpr size_t entry_bytes = 32;
  static constexpr size_t heads_at = 12;   // free_head, old_free_head
  static constexpr size_t places_at = 16;  // used_idx, old_used_idx, used_wrap_counter, old_used_wrap_counter
  static constexpr size_t next_at = 2;
  static constexpr size_t last_at = 4;
  static constexpr size_t num_at = 6;
  static constexpr size_t counter_at = 8;
  static constexpr size_t id_at = 16;
  static constexpr size_t flags_at = 18;
  static constexpr size_t len_at = 20;
  static constexpr size_t addr_at = 24;
  friend uint64_t inflight_bytes(uint32_t size, bool packed);

  struct Taken {
    uint16_t last = 0;  // entry of the region
    uint16_t num = 0;   // entries
  };
  class Image;

  PackedInflight(std::byte* base, uint32_t size)
      : base_(base),
        size_(size),
        next_(size),
        taken_(size),
        first_of_(size, static_cast<uint16_t>(size)),
        batch_(size),
        walked_(size) {}
  [[nodiscard]] std::byte* entry(uint32_t index) const { return base_ + header_bytes + index * entry_bytes; }
  void make(const PackedPlace& fresh);
  Result<> recover(const Image& image, std::byte* desc);
  Result<> settle(const Image& image, const std::byte* desc);
  Result<> read_free_list(const Image& image, std::vector<bool>& known);
  Result<> read_chains(const Image& image, std::vector<bool>& known);
  Result<> read_chain(const Image& image, uint16_t first, std::vector<bool>& known);
  void hide_unpublished(std::byte* desc) const;
  void note(uint16_t id, uint32_t position, uint32_t count);
  void store_heads(uint16_t old_free_head);
  void store_places(const PackedPlace& old_used);

  std::byte* base_;
  uint32_t size_;
  uint64_t counter_ = 0;
  uint64_t popped_ = 0;  // ring entries, since the ring started
  uint16_t free_head_ = 0;
  PackedPlace start_;
  PackedPlace used_;
  uint32_t batch_size_ = 0;
  std::vector<uint16_t> next_;      // of each entry: in its chain, or in the free list, which ends at `size_`
  std::vector<Taken> taken_;        // by their first entry
  std::vector<uint16_t> first_of_;  // by buffer id, of chains in flight
  std::vector<uint16_t> batch_;     // first entries that are used and not published
  std::vector<Descriptor> walked_;  // by position in the ring
  std::vector<Descriptor> again_;
};

}  // namespace ringway::ring
