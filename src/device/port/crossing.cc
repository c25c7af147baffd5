#include "ringway/device/port/crossing.h"

#include <time.h>

#include <algorithm>

#include "ringway/base/log.h"
#include "ringway/device/port/ingress.h"

namespace ringway::port {
namespace {

constexpr uint64_t ns_per_second = 1'000'000'000;
constexpr auto expiry_period = std::chrono::milliseconds(10);

// A few milliseconds behind at worst, but costs next to nothing.
uint64_t coarse_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return static_cast<uint64_t>(time.tv_sec) * ns_per_second + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

Door::Door(Crossing& crossing, Station& station, uint16_t pair)
    : crossing_(crossing), station_(station), pair_(pair), tally_(station.open_tally()) {
  crossing_.enter();
  crossing_.add(*this);
  Station::Way& way = station_.ways[pair];
  way.door = this;
  way.crossing.store(&crossing_, std::memory_order_release);
}

Door::~Door() {
  Station::Way& way = station_.ways[pair_];
  if (way.door == this) {
    way.crossing.store(nullptr, std::memory_order_release);
    way.door = nullptr;
  }
  crossing_.remove(*this);
  crossing_.leave();
  station_.close_tally(tally_);
}

bool may_reach(const Station& from, const Station& to, uint16_t vlan) {
  return &from != &to && !to.is_mirror && to.carries(vlan) && !(from.is_isolated && to.is_isolated);
}

uint16_t pair_for(const Station& to, uint32_t hash) {
  const uint16_t pairs = to.pairs.load(std::memory_order_relaxed);
  if (pairs <= 1) return 0;
  const auto pair = static_cast<uint16_t>(hash % pairs);
  return to.ways[pair].crossing.load(std::memory_order_relaxed) == nullptr ? 0 : pair;
}

Result<std::unique_ptr<Crossing>> Crossing::make(size_t index, loop::Loop& loop) {
  Mapping scratch = TRY(Mapping::anonymous(2 * scratch_bytes));
  Mapping storage = TRY(Mapping::anonymous(copies * scratch_bytes));
  UniqueFd fd = TRY(make_eventfd());
  Notifier notifier = TRY(Notifier::adopt(TRY(fd.duplicate())));
  Signal signal = TRY(Signal::adopt(std::move(fd)));
  return std::unique_ptr<Crossing>(new Crossing(index, loop, std::move(scratch), std::move(storage),
                                                std::move(signal), std::move(notifier)));
}

Crossing::Crossing(size_t index, loop::Loop& loop, Mapping scratch, Mapping storage, Signal signal,
                   Notifier notifier)
    : index_(index),
      loop_(loop),
      scratch_(std::move(scratch)),
      storage_(std::move(storage)),
      signal_(std::move(signal)),
      notifier_(std::move(notifier)),
      parcels_(std::make_unique<Parcel[]>(copies)) {  // NOLINT
  for (size_t i = 0; i < copies; ++i) {
    parcels_[i].home = this;
    parcels_[i].storage = storage_.data() + i * scratch_bytes;
    free_.push(parcels_[i]);
  }
}

void Crossing::enter() {
  if (users_++ > 0) return;
  loop_.add(*this);
  const auto watched = loop_.watch(*this, signal_);
  is_watched_ = watched.has_value();
  // Without a way to be woken it never sleeps.
  if (!watched) log::warning("a switch cannot watch its own notifications: {}", watched.error().to_string());
  open_.store(true, std::memory_order_seq_cst);
}

void Crossing::leave() {
  if (--users_ > 0) return;
  open_.store(false, std::memory_order_seq_cst);
  while (!arriving_.empty()) end(arriving_.pop());
  bounce();
  if (timer_ != 0) loop_.cancel(std::exchange(timer_, 0));
  loop_.forget(*this);
  if (begun_) end_of_turn();
  deal_with_returned();
  loop_.remove(*this);
}

void Crossing::begin() {
  if (begun_) return;
  begun_ = true;
  now_ = coarse_now();
  tick_ = static_cast<uint32_t>(now_ / (ns_per_second / MacTable::ticks_per_second));
  loop_.at_end_of_turn(*this);
}

void Crossing::add(Door& door) {
  doors_.push_back(&door);
  door_count_.store(doors_.size(), std::memory_order_relaxed);
}

void Crossing::remove(Door& door) {
  std::erase(doors_, &door);
  std::erase(to_flush_, &door);
  door_count_.store(doors_.size(), std::memory_order_relaxed);
}

void Crossing::flush_later(Door& door) {
  if (std::ranges::find(to_flush_, &door) == to_flush_.end()) to_flush_.push_back(&door);
  begin();
}

void Crossing::expire_later() {
  if (timer_ != 0) return;
  timer_ = loop_.after(expiry_period, [this] {
    timer_ = 0;
    expire();
  });
}

void Crossing::expire() {
  begin();
  for (Door* door : doors_) door->expire(now_);
}

Parcel* Crossing::copy(const Frame& frame, size_t head) {
  if (free_.empty()) return nullptr;
  Parcel& parcel = free_.pop();
  copy_frame(frame, parcel.storage);
  head = std::min<size_t>(head, frame.length);
  parcel.offload = frame.offload;
  parcel.length = frame.length;
  parcel.head = {parcel.storage, head};
  parcel.own_pieces[0] = {.iov_base = parcel.storage + head, .iov_len = frame.length - head};
  parcel.pieces = std::span(parcel.own_pieces).first(frame.length > head ? 1 : 0);
  return &parcel;
}

void Crossing::release(Parcel& parcel) {
  parcel.dropped = Count::end;
  if (parcel.ingress != nullptr) {
    parcel.ingress->release(parcel);
  } else {
    free_.push(parcel);
  }
}

void Crossing::end(Parcel& parcel) {
  if (parcel.home != this) {
    outgoing(*parcel.home).returned.push(parcel);
  } else if (parcel.ingress != nullptr) {
    parcel.ingress->ended(parcel);
  } else {
    release(parcel);
  }
}

Crossing::Outgoing& Crossing::outgoing(Crossing& to) {
  begin();
  if (outgoing_.size() <= to.index_) outgoing_.resize(to.index_ + 1);
  Outgoing& out = outgoing_[to.index_];
  out.to = &to;
  if (out.parcels.empty() && out.returned.empty()) not_sent_.push_back(&out);
  return out;
}

void Crossing::hand_over(Crossing& to, Parcel& parcel) { outgoing(to).parcels.push(parcel); }

void Crossing::send_outgoing() {
  for (Outgoing* out : not_sent_) {
    if (!out->parcels.empty()) out->to->take_in(out->parcels.take_all());
    if (!out->returned.empty()) out->to->take_back(out->returned.take_all());
  }
  not_sent_.clear();
}

void Crossing::end_of_turn() {
  begun_ = false;
  ++turn_;
  for (Door* door : std::exchange(to_flush_, {})) door->flush();
  send_outgoing();
}

// Any thread. The order is that of loop::Doorbell: what was pushed is seen by whoever lies down, or the
// notification is sent; and whoever closes takes what was pushed, or whoever pushed sees that it is closed.
void Crossing::arrive(ParcelInbox& inbox, ParcelList parcels) {
  inbox.push(parcels);
  if (asleep_.load(std::memory_order_seq_cst)) notifier_.signal();
  if (!open_.load(std::memory_order_seq_cst)) bounce();
}

// Any thread, when nobody is here: parcels of others go home.
void Crossing::bounce() {
  ParcelList parcels = arrived_.take_all();
  while (!parcels.empty()) {
    Parcel& parcel = parcels.pop();
    parcel.dropped = Count::not_running;
    ParcelList one;
    one.push(parcel);
    parcel.home->take_back(one);
  }
}

void Crossing::recall() {
  recalled_.store(true, std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_seq_cst)) notifier_.signal();
}

bool Crossing::park() {
  if (!is_watched_) return false;
  asleep_.store(true, std::memory_order_seq_cst);
  const bool found = !arrived_.empty() || !returned_.empty() || !arriving_.empty() ||
                     recalled_.load(std::memory_order_seq_cst);
  if (found) asleep_.store(false, std::memory_order_relaxed);
  return !found;
}

bool Crossing::poll() {
  bool worked = deal_with_returned();
  worked = deal_with_arrived() || worked;
  if (recalled_.load(std::memory_order_relaxed) && recalled_.exchange(false)) {
    worked = true;
    for (Door* door : doors_) door->recall();
  }
  return worked;
}

bool Crossing::deal_with_returned() {
  ParcelList parcels = returned_.take_all();
  if (parcels.empty()) return false;
  while (!parcels.empty()) end(parcels.pop());
  return true;
}

bool Crossing::deal_with_arrived() {
  if (arriving_.empty()) arriving_ = arrived_.take_all();
  if (arriving_.empty()) return false;
  begin();
  for (size_t i = 0; i < parcels_a_turn && !arriving_.empty(); ++i) deliver(arriving_.pop());
  return true;
}

void Crossing::deliver(Parcel& parcel) {
  if (parcel.to == nullptr) {
    pass_to_all(parcel, parcel.tagging, parcel.hash, *parcel.from);
    end(parcel);
    return;
  }
  const Station::Way& way = parcel.to->ways[parcel.pair];
  const bool is_here = way.crossing.load(std::memory_order_relaxed) == this;
  if (!is_here) parcel.dropped = Count::not_running;
  if (!is_here || way.door->accept(parcel)) end(parcel);
}

void Crossing::pass_to_all(const Frame& frame, const Tagging& tagging, uint32_t hash, const Station& from) {
  for (Door* door : doors_) {
    const Station& to = door->station();
    if (!may_reach(from, to, tagging.vlan) || door->pair() != pair_for(to, hash)) continue;
    const Retagged retagged(frame, tagging, to);
    pass_or_keep(*door, retagged.frame());
  }
}

void Crossing::pass_or_keep(Door& door, const Frame& frame) {
  if (door.pass(frame)) return;
  Parcel* const parcel = door.can_keep() ? copy(frame, switch_head) : nullptr;
  if (parcel == nullptr) {
    door.lost();
  } else if (door.accept(*parcel)) {
    release(*parcel);
  }
}

}  // namespace ringway::port
