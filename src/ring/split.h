// SplitRing: a running split virtqueue, device half. Owned by one worker thread. VIRTIO "Split Virtqueues".
// The functions are described in ring.h. Used index and entries are written and never read back.
#pragma once

#include <algorithm>

#include "ringway/ring/chains.h"
#include "ringway/ring/config.h"
#include "ringway/ring/inflight.h"

namespace ringway::ring {

class SplitRing {
 public:
  // `config` has been validated.
  static Result<SplitRing> start(RingConfig config, memory::View view);

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
      if (inflight_ != nullptr) [[unlikely]]
        inflight_->take(chains_.next_ready().index);
      chain = chains_.take();
    }
    chains_.taken(static_cast<uint32_t>(count));
    next_avail_ = static_cast<uint16_t>(next_avail_ + count);
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
  void change_log(Logging logging);

  // Under the ring itself, where that is mapped apart from the memory table.
  [[nodiscard]] bool memory_is_broken() const { return config_.memory_is_broken(); }
  [[nodiscard]] bool is_tracked() const { return inflight_ != nullptr; }  // in an in-flight area
  [[nodiscard]] uint32_t in_flight() const { return chains_.in_flight(); }
  [[nodiscard]] uint32_t size() const { return mask_ + uint32_t{1}; }
  // With an in-flight area, what was taken and is not used counts as popped.
  [[nodiscard]] RingBase base() const {
    const uint32_t again = inflight_ == nullptr ? 0 : inflight_->again();
    return {.avail = static_cast<uint16_t>(next_avail_ + again), .used = used_};
  }
  RingConfig stop() &&;

 private:
  struct Ahead;
  SplitRing(RingConfig config, Chains chains, std::unique_ptr<SplitInflight> inflight);
  Result<> fill();
  uint32_t look_ahead(std::span<Ahead> ahead);
  bool make_ready_alone(const Ahead& first);
  Verdict walk(const Ahead& first, Gatherer& gather);
  Verdict follow(const Descriptor& first, Gatherer& gather, uint32_t& steps) const;
  void use(Slot& slot, uint32_t written) {
    std::byte* const entry = device_ + entries_at + (used_++ & mask_) * used_entry_bytes;
    order_.store<uint32_t>(entry, slot.index);
    order_.store<uint32_t>(entry + 4, written);
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
  void log_used(RingLog& log) const;
  void log_device(uint64_t offset);
  void unwalk();
  // The head of the next chain but `ahead` that is to be walked.
  [[nodiscard]] uint16_t next_head(uint32_t ahead) const;

  std::byte* desc_;
  std::byte* driver_;
  std::byte* device_;
  ByteOrder order_;
  uint16_t mask_;        // size - 1
  uint16_t next_avail_;  // popped up to here
  uint16_t walked_;      // looked ahead up to here
  uint16_t seen_avail_;  // the driver's index when it was read last
  uint16_t used_;        // pushed up to here
  uint16_t published_;
  bool indirect_;
  bool event_idx_;
  bool first_publish_ = true;
  Chains chains_;
  std::unique_ptr<SplitInflight> inflight_;  // null: not tracked
  RingConfig config_;
};

}  // namespace ringway::ring
