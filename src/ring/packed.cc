#include "ringway/ring/packed.h"

#include <algorithm>

namespace ringway::ring {

// Descriptors that were read before the chains that they belong to are walked. Chains lie one behind the
// other, so what is behind the staged ones is read from the ring.
class PackedRing::Ahead {
 public:
  explicit Ahead(const PackedRing& ring) : ring_(ring) {}
  void add(const Descriptor& descriptor) { staged_[end_++] = descriptor; }
  bool next(const PackedPlace& place, Descriptor& to) {
    if (next_ == end_) return ring_.load_next(place, to);
    to = staged_[next_++];
    return true;
  }
  [[nodiscard]] bool any() const { return next_ != end_; }
  [[nodiscard]] uint32_t size() const { return end_ - next_; }

 private:
  const PackedRing& ring_;
  uint32_t next_ = 0;
  uint32_t end_ = 0;
  std::array<Descriptor, Chains::look_ahead> staged_;
};

Result<PackedRing> PackedRing::start(RingConfig config, memory::View view) {
  Chains chains = TRY(Chains::create(config.size, config.format.in_order, std::move(view)));
  std::unique_ptr<PackedInflight> inflight;
  if (config.is_tracked()) {
    RingBase& base = config.base;
    const PackedPlace fresh{.position = base.used, .wrap = base.used_wrap};
    inflight = TRY(PackedInflight::open(config.inflight, config.size, config.desc.data(), fresh));
    base.used = base.avail = static_cast<uint16_t>(inflight->start().position);
    base.used_wrap = base.avail_wrap = inflight->start().wrap;
  }
  return PackedRing(std::move(config), std::move(chains), std::move(inflight));
}

PackedRing::PackedRing(RingConfig config, Chains chains, std::unique_ptr<PackedInflight> inflight)
    : desc_(config.desc.data()),
      driver_(config.driver.data()),
      device_(config.device.data()),
      size_(config.size),
      avail_{.position = config.base.avail, .wrap = config.base.avail_wrap},
      walked_(avail_),
      used_{.position = config.base.used, .wrap = config.base.used_wrap},
      outstanding_(avail_.distance_from(used_, size_)),
      indirect_(config.format.indirect),
      event_idx_(config.format.event_idx),
      chains_(std::move(chains)),
      inflight_(std::move(inflight)),
      config_(std::move(config)) {}

// With an in-flight area, what a predecessor has taken comes first.
bool PackedRing::load_next(const PackedPlace& place, Descriptor& to) const {
  if (inflight_ != nullptr) [[unlikely]] {
    const uint32_t before = place.distance_from(avail_, size_);
    if (before < inflight_->again()) {
      to = inflight_->descriptor_again(before);
      return true;
    }
  }
  return load_available(place, to);
}

Result<> PackedRing::fill() {
  TRY(chains_.begin_fill());
  Ahead ahead(*this);
  if (inflight_ == nullptr && fill_alone(ahead)) return {};
  const uint32_t most = std::min(Chains::look_ahead - chains_.ready(), size_ - outstanding_);
  PackedPlace place = walked_;
  if (ahead.any()) place.advance(1, size_);
  Descriptor descriptor;
  while (ahead.size() < most && load_next(place, descriptor)) {
    stage(descriptor, ahead);
    place.advance(1, size_);
  }
  while (ahead.any()) {
    Gatherer gather = chains_.gather();
    const Verdict verdict = walk(ahead, gather);
    if (!verdict.ok()) {
      chains_.stop(verdict, gather);
      break;
    }
  }
  return chains_.end_fill();
}

void PackedRing::stage(const Descriptor& descriptor, Ahead& ahead) {
  if (descriptor.indirect()) chains_.prefetch_table(descriptor);
  if (descriptor.last < size_) chains_.prefetch_slot(descriptor.last);
  ahead.add(descriptor);
}

// The chains in front that need no walk: one descriptor, one piece. False: behind them is one that does, of
// which the first descriptor is staged.
bool PackedRing::fill_alone(Ahead& ahead) {
  const uint32_t most = std::min(Chains::look_ahead, size_ - outstanding_);
  PackedPlace place = walked_;
  uint32_t count = 0;
  bool alone = true;
  for (Descriptor next; count < most && load_available(place, next); ++count) {
    alone = !next.indirect() && !next.continues() && next.last < size_ && chains_.make_ready(next.last, next);
    if (!alone) {
      stage(next, ahead);
      break;
    }
    place.advance(1, size_);
  }
  walked_ = place;
  outstanding_ += count;
  return alone;
}

Verdict PackedRing::walk(Ahead& ahead, Gatherer& gather) {
  if (!chains_.has_room()) return {Flaw::no_room};
  uint32_t entries = 0;
  uint16_t id = 0;
  if (const Verdict verdict = follow(ahead, gather, entries, id); !verdict.ok()) return verdict;
  if (id >= size_) return {Flaw::packed_id_range, id};
  if (!chains_.is_free(id)) return {Flaw::packed_id_busy, id};
  chains_.make_ready(id, gather, entries);
  walked_.advance(entries, size_);
  outstanding_ += entries;
  return {};
}

// The id is that of the last descriptor.
Verdict PackedRing::follow(Ahead& ahead, Gatherer& gather, uint32_t& entries, uint16_t& id) {
  const uint32_t most = size_ - outstanding_;
  PackedPlace place = walked_;
  Descriptor descriptor;
  do {
    if (entries == most) return {Flaw::chain_length, entries};
    if (!ahead.next(place, descriptor)) return {Flaw::packed_incomplete, place.position};
    if (inflight_ != nullptr) [[unlikely]]
      inflight_->walked(place.position, descriptor);
    place.advance(1, size_);
    ++entries;
    Verdict added;
    if (descriptor.indirect()) {
      if (!indirect_) return {Flaw::indirect_feature, descriptor.address};
      if (descriptor.continues() || entries > 1) return {Flaw::indirect_next, place.position};
      added = gather.add_listed_table(descriptor, order_);
    } else {
      added = gather.add(descriptor);
    }
    if (!added.ok()) return added;
  } while (descriptor.continues());
  id = descriptor.last;
  return {};
}

void PackedRing::push_used(std::span<Chain> chains) {
  if (!may_skip(chains)) {
    for (Chain& chain : chains) push_used(std::move(chain), 0);
    return;
  }
  const uint32_t skipped = chains_.skip(chains);
  chains_.drop_oldest();
  use(chains.back().end(), 0);
  used_.advance(skipped, size_);
  unpublished_ += skipped;
  use_what_waited();
}

// Forgets what was looked ahead.
void PackedRing::unwalk() {
  outstanding_ -= chains_.drop_ready();
  walked_ = avail_;
}

void PackedRing::push_back(Chain chain) {
  unwalk();
  Slot& slot = chain.end();
  outstanding_ -= slot.descriptors;
  if (inflight_ != nullptr) inflight_->give_back(slot.index);
  avail_.retreat(slot.descriptors, size_);
  walked_ = avail_;
  chains_.take_back(slot);
}

void PackedRing::set_view(memory::View view) {
  unwalk();
  chains_.set_view(std::move(view));
}

void PackedRing::set_log(std::unique_ptr<RingLog> log) {
  unwalk();
  chains_.set_log(std::move(log));
}

bool PackedRing::publish() {
  if (unpublished_ == 0) return false;
  RingLog* const log = chains_.log();
  if (log != nullptr) [[unlikely]]
    log->mark();
  if (inflight_ != nullptr) {
    pass(Failpoint::packed_publish_begin);
    inflight_->publish(used_);
  }
  order_.store<uint32_t>(held_.at + packed_length_at, held_.length);
  order_.store<uint16_t>(held_.at + packed_id_at, held_.id);
  order_.store<uint16_t>(held_.at + packed_flags_at, held_.flags, std::memory_order_release);
  if (inflight_ != nullptr) inflight_->published();
  const uint32_t count = std::exchange(unpublished_, 0);
  outstanding_ -= count;
  full_fence();
  if (log != nullptr) [[unlikely]] {
    log->wrote_desc(static_cast<uint64_t>(held_.at - desc_), descriptor_bytes);
    log->mark_behind_fence();
  }
  const PackedEvent event{order_.load<uint32_t>(driver_)};
  PackedPlace before = used_;
  before.retreat(count, size_);
  // What the driver asked for before we started may have been passed by whoever served the ring then.
  const bool exactly = event_idx_ && !std::exchange(first_publish_, false);
  return event.wants(before, count, size_, exactly);
}

void PackedRing::disable_kicks() {
  order_.store<uint32_t>(device_, PackedEvent::never().raw);
  log_event();
}

bool PackedRing::enable_kicks() {
  order_.store<uint32_t>(device_, event_idx_ ? PackedEvent::at(avail_).raw : PackedEvent::always().raw);
  log_event();
  full_fence();
  if (chains_.any_ready() || (inflight_ != nullptr && inflight_->again() > 0)) return true;
  const auto flags = order_.load<uint16_t>(entry(walked_) + packed_flags_at);
  return outstanding_ < size_ && has_packed_flags(flags, walked_.available_flags());
}

void PackedRing::log_event() {
  RingLog* const log = chains_.log();
  if (log == nullptr) [[likely]]
    return;
  log->wrote_device(0, event_bytes);
  log->mark();
}

RingConfig PackedRing::stop() && {
  config_.base = base();
  return std::move(config_);
}

}  // namespace ringway::ring
