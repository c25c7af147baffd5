// PackedRing: a running packed virtqueue, device half. Owned by one worker thread. VIRTIO "Packed
// Virtqueues". The functions are described in ring.h. Used descriptors are written and never read back.
#pragma once

#include <algorithm>

#include "ringway/ring/chains.h"
#include "ringway/ring/config.h"
#include "ringway/ring/inflight.h"

namespace ringway::ring {

class PackedRing {
 public:
  // `config` has been validated.
  static Result<PackedRing> start(RingConfig config, memory::View view);

  Result<Chain> pop() {
    Chain chain;
    (void)TRY(pop(std::span(&chain, 1)));
    return chain;
  }
  Result<size_t> pop(std::span<Chain> to) {
    if (!chains_.any_ready()) [[unlikely]]
      TRY(fill());
    const size_t count = std::min<size_t>(chains_.ready(), to.size());
    for (Chain& chain : to.first(count)) {
      const Slot& next = chains_.next_ready();
      if (inflight_ != nullptr) [[unlikely]]
        inflight_->take(next.index, avail_.position, next.descriptors);
      avail_.advance(next.descriptors, size_);
      chain = chains_.take();
    }
    chains_.taken(static_cast<uint32_t>(count));
    return count;
  }
  [[nodiscard]] const std::optional<memory::Translation>& missing() const { return chains_.missing(); }
  void push_used(Chain chain, uint32_t written) {
    Slot& slot = chain.end();
    if (!chains_.in_order()) return use(slot, written);
    if (!chains_.is_ordered(slot, 0)) return chains_.mark_done(slot, written);
    chains_.drop_oldest();
    use(slot, written);
    use_what_waited();
  }
  void push_used(std::span<Chain> chains);
  void push_back(Chain chain);
  void abandon(Chain chain) { chains_.abandon(chain.end()); }
  [[nodiscard]] bool publish();
  void disable_kicks();
  [[nodiscard]] bool enable_kicks();
  void set_view(memory::View view);
  void set_log(std::unique_ptr<RingLog> log);
  void set_steady(size_t bytes) { chains_.set_steady(bytes); }
  void change_log(Logging logging) { chains_.log()->change(std::move(logging)); }

  // Under the ring itself, where that is mapped apart from the memory table.
  [[nodiscard]] bool memory_is_broken() const { return config_.memory_is_broken(); }
  [[nodiscard]] bool is_tracked() const { return inflight_ != nullptr; }  // in an in-flight area
  [[nodiscard]] uint32_t in_flight() const { return chains_.in_flight(); }
  [[nodiscard]] uint32_t size() const { return size_; }
  // With an in-flight area, what was taken and is not used counts as popped.
  [[nodiscard]] RingBase base() const {
    PackedPlace avail = avail_;
    if (inflight_ != nullptr) avail.advance(inflight_->again(), size_);
    return {.avail = static_cast<uint16_t>(avail.position),
            .used = static_cast<uint16_t>(used_.position),
            .avail_wrap = avail.wrap,
            .used_wrap = used_.wrap};
  }
  RingConfig stop() &&;

 private:
  class Ahead;
  // A used descriptor that is not written yet. Its flags show it and those behind it. They are stored last
  // and by themselves, for drivers read them with 16 bits: to the memory model a wider store is of another
  // object.
  struct Held {
    std::byte* at = nullptr;
    uint32_t length = 0;
    uint16_t id = 0;
    uint16_t flags = 0;
  };
  PackedRing(RingConfig config, Chains chains, std::unique_ptr<PackedInflight> inflight);
  [[nodiscard]] std::byte* entry(const PackedPlace& place) const {
    return desc_ + place.position * descriptor_bytes;
  }
  // Reads the descriptor at `place`, not before walked_; false if the driver has not made it available.
  bool load_available(const PackedPlace& place, Descriptor& to) const {
    const std::byte* const at = entry(place);
    to.flags = order_.load<uint16_t>(at + packed_flags_at, std::memory_order_acquire);
    if (!has_packed_flags(to.flags, place.available_flags())) return false;
    to.address = order_.load<uint64_t>(at);
    to.length = order_.load<uint32_t>(at + packed_length_at);
    to.last = order_.load<uint16_t>(at + packed_id_at);
    return true;
  }
  bool load_next(const PackedPlace& place, Descriptor& to) const;
  Result<> fill();
  bool fill_alone(Ahead& ahead);
  void stage(const Descriptor& descriptor, Ahead& ahead);
  Verdict walk(Ahead& ahead, Gatherer& gather);
  Verdict follow(Ahead& ahead, Gatherer& gather, uint32_t& entries, uint16_t& id);
  void use(Slot& slot, uint32_t written) {
    std::byte* const at = entry(used_);
    const uint16_t flags = used_.used_flags() | (written > 0 ? VRING_DESC_F_WRITE : 0);
    if (unpublished_ == 0) {
      held_ = {.at = at, .length = written, .id = slot.index, .flags = flags};
    } else {
      memory::store<uint64_t>(at + packed_length_at, order_.second_word(written, slot.index, flags));
    }
    if (RingLog* const log = chains_.log()) [[unlikely]]
      log->wrote_desc(static_cast<uint64_t>(at - desc_), descriptor_bytes);
    used_.advance(slot.descriptors, size_);
    unpublished_ += slot.descriptors;
    if (inflight_ != nullptr) [[unlikely]]
      inflight_->use(slot.index);
    chains_.end(slot, written);
  }
  void use_what_waited() {
    while (Slot* const oldest = chains_.oldest_done()) use(*oldest, oldest->written);
  }
  [[nodiscard]] bool may_skip(std::span<const Chain> chains) const {
    return inflight_ == nullptr && chains_.may_skip(chains);
  }
  void log_event();
  void unwalk();

  std::byte* desc_;
  std::byte* driver_;
  std::byte* device_;
  static constexpr ByteOrder order_{};  // there are no legacy packed rings
  uint32_t size_;
  PackedPlace avail_;         // popped up to here
  PackedPlace walked_;        // looked ahead up to here
  PackedPlace used_;          // pushed up to here
  uint32_t outstanding_ = 0;  // entries from the published ones to walked_
  uint32_t unpublished_ = 0;  // entries that were pushed
  Held held_;                 // of the first of them
  bool indirect_;
  bool event_idx_;
  bool first_publish_ = true;
  Chains chains_;
  std::unique_ptr<PackedInflight> inflight_;  // null: not tracked
  RingConfig config_;
};

}  // namespace ringway::ring
