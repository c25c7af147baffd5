#include "ringway/ring/split.h"

#include <algorithm>

namespace ringway::ring {

// The head of a chain that is about to be walked.
struct SplitRing::Ahead {
  uint16_t head;
  Descriptor descriptor;
};

Result<SplitRing> SplitRing::start(RingConfig config, memory::View view) {
  Chains chains = TRY(Chains::create(config.size, config.format.in_order, std::move(view)));
  std::unique_ptr<SplitInflight> inflight;
  if (config.is_tracked()) {
    const ByteOrder order(config.format.big_endian);
    config.base.avail = order.load<uint16_t>(config.device.data() + index_at);
    inflight = TRY(SplitInflight::open(config.inflight, config.size, config.base.avail));
  }
  return SplitRing(std::move(config), std::move(chains), std::move(inflight));
}

SplitRing::SplitRing(RingConfig config, Chains chains, std::unique_ptr<SplitInflight> inflight)
    : desc_(config.desc.data()),
      driver_(config.driver.data()),
      device_(config.device.data()),
      order_(config.format.big_endian),
      mask_(static_cast<uint16_t>(config.size - 1)),
      next_avail_(config.base.avail),
      walked_(config.base.avail),
      seen_avail_(config.base.avail),
      used_(config.base.avail),
      published_(config.base.avail),
      indirect_(config.format.indirect),
      event_idx_(config.format.event_idx),
      chains_(std::move(chains)),
      inflight_(std::move(inflight)),
      config_(std::move(config)) {}

Result<> SplitRing::fill() {
  TRY(chains_.begin_fill());
  std::array<Ahead, Chains::look_ahead> ahead;
  if (seen_avail_ == walked_) {
    seen_avail_ = order_.load<uint16_t>(driver_ + index_at, std::memory_order_acquire);
    if (seen_avail_ == walked_) return {};
  }
  const uint32_t count = look_ahead(ahead);
  for (uint32_t i = 0; i < count; ++i) {
    if (make_ready_alone(ahead[i])) {
      ++walked_;
      continue;
    }
    Gatherer gather = chains_.gather();
    const Verdict verdict = walk(ahead[i], gather);
    if (!verdict.ok()) {
      chains_.stop(verdict, gather);
      break;
    }
    ++walked_;
  }
  return chains_.end_fill();
}

// False: it takes a walk.
bool SplitRing::make_ready_alone(const Ahead& first) {
  const uint32_t waiting = static_cast<uint16_t>(seen_avail_ - walked_);
  return first.head <= mask_ && !first.descriptor.indirect() && !first.descriptor.continues() &&
         waiting <= size() && chains_.is_free(first.head) && chains_.make_ready(first.head, first.descriptor);
}

// Reads the next available entries, then their first descriptors, so that the loads overlap.
uint32_t SplitRing::look_ahead(std::span<Ahead> ahead) {
  const uint32_t waiting = static_cast<uint16_t>(seen_avail_ - walked_);
  if (waiting > size()) {  // walk() says so
    ahead[0] = {};
    return 1;
  }
  const uint32_t count = std::min<uint32_t>(waiting, ahead.size());
  for (uint32_t i = 0; i < count; ++i) {
    ahead[i].head = next_head(i);
    __builtin_prefetch(desc_ + (ahead[i].head & mask_) * descriptor_bytes);
    chains_.prefetch_slot(ahead[i].head & mask_);
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (ahead[i].head > mask_) {
      ahead[i].descriptor = {};
      return i + 1;
    }
    ahead[i].descriptor = order_.load_descriptor(desc_ + ahead[i].head * descriptor_bytes);
    if (ahead[i].descriptor.indirect()) chains_.prefetch_table(ahead[i].descriptor);
  }
  return count;
}

uint16_t SplitRing::next_head(uint32_t ahead) const {
  if (inflight_ != nullptr) [[unlikely]] {
    const uint32_t before = static_cast<uint16_t>(walked_ - next_avail_) + ahead;
    if (before < inflight_->again()) return inflight_->head_again(before);
  }
  const size_t entry = (walked_ + ahead) & mask_;
  return order_.load<uint16_t>(driver_ + entries_at + entry * avail_entry_bytes);
}

Verdict SplitRing::walk(const Ahead& first, Gatherer& gather) {
  const uint32_t waiting = static_cast<uint16_t>(seen_avail_ - walked_);
  if (waiting > size()) return {Flaw::available_index, seen_avail_};
  if (first.head > mask_) return {Flaw::head_range, first.head};
  if (!chains_.is_free(first.head)) return {Flaw::head_busy, first.head};
  if (!chains_.has_room()) return {Flaw::no_room};
  uint32_t steps = 0;
  const Verdict verdict = follow(first.descriptor, gather, steps);
  if (verdict.ok()) chains_.make_ready(first.head, gather, steps);
  return verdict;
}

Verdict SplitRing::follow(const Descriptor& first, Gatherer& gather, uint32_t& steps) const {
  const Descriptor* at = &first;
  Descriptor next;
  for (steps = 1;; ++steps) {
    if (at->indirect()) {
      if (!indirect_) return {Flaw::indirect_feature, at->address};
      if (at->continues()) return {Flaw::indirect_next, at->last};
      return gather.add_linked_table(*at, order_);
    }
    if (const Verdict added = gather.add(*at); !added.ok()) return added;
    if (!at->continues()) return {};
    if (at->last > mask_) return {Flaw::next_range, at->last};
    if (steps == size()) return {Flaw::loop, at->last};
    next = order_.load_descriptor(desc_ + at->last * descriptor_bytes);
    at = &next;
  }
}

void SplitRing::push_used(std::span<Chain> chains) {
  if (!may_skip(chains)) {
    for (Chain& chain : chains) push_used(std::move(chain), 0);
    return;
  }
  chains_.skip(chains);
  chains_.drop_oldest();
  use(chains.back().end(), 0);
  used_ = static_cast<uint16_t>(used_ + chains.size() - 1);
  use_what_waited();
}

// Forgets what was looked ahead.
void SplitRing::unwalk() {
  chains_.drop_ready();
  walked_ = next_avail_;
}

void SplitRing::push_back(Chain chain) {
  unwalk();
  Slot& slot = chain.end();
  if (inflight_ != nullptr) inflight_->give_back(slot.index);
  walked_ = --next_avail_;
  chains_.take_back(slot);
}

void SplitRing::set_view(memory::View view) {
  unwalk();
  chains_.set_view(std::move(view));
}

void SplitRing::set_log(std::unique_ptr<RingLog> log) {
  if (RingLog* const old = chains_.log()) log_used(*old);
  unwalk();
  chains_.set_log(std::move(log));
}

void SplitRing::change_log(Logging logging) {
  log_used(*chains_.log());
  chains_.log()->change(std::move(logging));
}

// Used entries that are not shown yet were written.
void SplitRing::log_used(RingLog& log) const {
  const uint32_t count = std::min<uint32_t>(static_cast<uint16_t>(used_ - published_), size());
  const uint32_t first = published_ & mask_;
  const uint32_t in_this_lap = std::min(count, size() - first);
  log.wrote_device(entries_at + first * used_entry_bytes, in_this_lap * used_entry_bytes);
  log.wrote_device(entries_at, (count - in_this_lap) * used_entry_bytes);
}

// What is logged is marked before it is shown, so that nothing that the driver has seen is missing if we are
// killed; the index itself afterwards, behind the fence that is needed anyway.
bool SplitRing::publish() {
  if (used_ == published_) return false;
  RingLog* const log = chains_.log();
  if (log != nullptr) [[unlikely]] {
    memory::prefetch_for_store(device_ + index_at);
    log_used(*log);
    log->mark();
  }
  const uint16_t before = std::exchange(published_, used_);
  if (inflight_ != nullptr) [[unlikely]]
    inflight_->publish();
  order_.store<uint16_t>(device_ + index_at, used_, std::memory_order_release);
  if (inflight_ != nullptr) [[unlikely]]
    inflight_->published(used_);
  full_fence();
  if (log != nullptr) [[unlikely]] {
    log->wrote_device(index_at, sizeof(uint16_t));
    log->mark_behind_fence();
  }
  if (!event_idx_) {
    const auto flags = order_.load<uint16_t>(driver_ + flags_at);
    return (flags & VRING_AVAIL_F_NO_INTERRUPT) == 0;
  }
  // What the driver asked for before we started may have been passed by whoever served the ring then.
  if (std::exchange(first_publish_, false)) return true;
  const auto event = order_.load<uint16_t>(driver_ + entries_at + size() * avail_entry_bytes);
  return passed(event, before, used_);
}

void SplitRing::disable_kicks() {
  // With the event index there is nothing to write: the driver has passed the event that it was asked for.
  if (event_idx_) return;
  order_.store<uint16_t>(device_ + flags_at, VRING_USED_F_NO_NOTIFY);
  log_device(flags_at);
}

bool SplitRing::enable_kicks() {
  if (event_idx_) {
    order_.store<uint16_t>(device_ + entries_at + size() * used_entry_bytes, next_avail_);
    log_device(entries_at + size() * used_entry_bytes);
  } else {
    order_.store<uint16_t>(device_ + flags_at, 0);
    log_device(flags_at);
  }
  full_fence();
  if (chains_.any_ready() || seen_avail_ != walked_) return true;
  return order_.load<uint16_t>(driver_ + index_at) != walked_;
}

// Two bytes of the used ring that are no entry were written.
void SplitRing::log_device(uint64_t offset) {
  RingLog* const log = chains_.log();
  if (log == nullptr) [[likely]]
    return;
  log->wrote_device(offset, sizeof(uint16_t));
  log->mark();
}

RingConfig SplitRing::stop() && {
  config_.base = base();
  return std::move(config_);
}

}  // namespace ringway::ring
