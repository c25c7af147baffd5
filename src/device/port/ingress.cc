#include "ringway/device/port/ingress.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

uint64_t with_vlan(uint16_t vlan, Mac mac) { return mac | uint64_t{vlan} << 48; }

uint16_t pair_of(const Station& to, const Frame& frame) {
  return to.pairs.load(std::memory_order_relaxed) > 1 ? pair_for(to, flow_hash(frame.head)) : 0;
}

}  // namespace

Ingress::Ingress(Switch& fabric, Crossing& crossing, Station& station)
    : switch_(fabric),
      crossing_(crossing),
      station_(station),
      tally_(station.open_tally()),
      parcels_(std::make_unique<Parcel[]>(max_under_way)) {  // NOLINT
  for (size_t i = 0; i < max_under_way; ++i) {
    parcels_[i].home = &crossing;
    parcels_[i].ingress = this;
    free_.push(parcels_[i]);
  }
  crossing_.enter();
}

Ingress::~Ingress() {
  assert(under_way_ == 0);
  crossing_.leave();
  station_.close_tally(tally_);
}

void Ingress::begin() {
  crossing_.begin();
  found_ = 0;
  if (draining_.load(std::memory_order_relaxed)) draining_.store(false, std::memory_order_relaxed);
}

bool Ingress::enter(const Frame& frame, Frame* original) {
  begin();
  tally_.add(Count::sent);
  tally_.add(Count::sent_bytes, frame.length);
  Course course;
  return !set_course(frame, course) || go(frame, original, course);
}

// The frames of a batch that were not dropped, and where they go.
class Ingress::Batch {
 public:
  Batch(Ingress& ingress, std::span<Frame* const> frames, std::span<Outlet::Sent> sent);
  void go();

 private:
  [[nodiscard]] size_t run_at(size_t first) const;
  void fetch();

  Ingress& ingress_;
  const std::span<Outlet::Sent> sent_;
  size_t count_ = 0;
  std::array<Frame*, Outlet::most_at_once> frames_;
  std::array<Course, Outlet::most_at_once> courses_;
  std::array<uint8_t, Outlet::most_at_once> places_;  // in `sent_`
  std::array<Door*, Outlet::most_at_once> doors_;     // null: none, or not on this worker, or to everybody
};

void Ingress::enter_batch(std::span<Frame* const> frames, std::span<Outlet::Sent> sent) {
  assert(frames.size() <= Outlet::most_at_once && frames.size() <= sent.size());
  begin();
  Batch(*this, frames, sent).go();
}

Ingress::Batch::Batch(Ingress& ingress, std::span<Frame* const> frames, std::span<Outlet::Sent> sent)
    : ingress_(ingress), sent_(sent) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < frames.size(); ++i) {
    sent[i] = Outlet::Sent::done;
    bytes += frames[i]->length;
    Course& course = courses_[count_];
    if (!ingress.set_course(*frames[i], course)) continue;
    if (course.to != nullptr) __builtin_prefetch(course.to);
    frames_[count_] = frames[i];
    places_[count_++] = static_cast<uint8_t>(i);
  }
  ingress.tally_.add(Count::sent, frames.size());
  ingress.tally_.add(Count::sent_bytes, bytes);
  fetch();
}

void Ingress::Batch::fetch() {
  for (size_t i = 0; i < count_; ++i) {
    doors_[i] = nullptr;
    if (courses_[i].to == nullptr) continue;
    const Station::Way& way = courses_[i].to->ways[pair_of(*courses_[i].to, *frames_[i])];
    if (way.crossing.load(std::memory_order_relaxed) != &ingress_.crossing_) continue;
    doors_[i] = way.door;
    __builtin_prefetch(doors_[i]);
  }
  for (size_t i = 0, end = 0; i < count_; i = end) {
    while (end < count_ && doors_[end] == doors_[i]) ++end;
    if (doors_[i] != nullptr) doors_[i]->expect(end - i);
  }
}

// How many from here on leave through the same door as they are.
size_t Ingress::Batch::run_at(size_t first) const {
  const Course& course = courses_[first];
  if (doors_[first] == nullptr || !may_reach(ingress_.station_, *course.to, course.tagging.vlan)) return 0;
  size_t end = first;
  while (end < count_ && doors_[end] == doors_[first] && courses_[end].tagging.vlan == course.tagging.vlan &&
         is_tagged_for(*course.to, courses_[end].tagging))
    ++end;
  return end - first;
}

void Ingress::Batch::go() {
  const bool is_mirrored = ingress_.switch_.mirror() != nullptr;
  for (size_t i = 0; i < count_;) {
    const size_t run = is_mirrored ? 0 : run_at(i);
    const size_t end = i + std::max<size_t>(run, 1);
    if (run > 0) i += doors_[i]->pass_batch(std::span(frames_).subspan(i, run));
    for (; i < end; ++i) {
      if (!ingress_.go(*frames_[i], frames_[i], courses_[i])) sent_[places_[i]] = Outlet::Sent::later;
    }
  }
}

// In place: what is written in parts and copied whole waits for all stores before it, also for those to lines
// that a driver holds.
bool Ingress::set_course(const Frame& frame, Course& course) {
  Tagging& tagging = course.tagging;
  if (!find_tag(frame.head, station_, tagging)) {
    drop(Count::malformed);
    return false;
  }
  if (!may_enter(frame, tagging)) return false;
  learn(tagging.vlan, peek_mac(&frame.head[6]));
  const Mac to = peek_mac(frame.head.data());
  course.to = is_group(to) ? nullptr : find(tagging.vlan, to);
  return true;
}

bool Ingress::go(const Frame& frame, Frame* original, const Course& course) {
  Station* const mirror = switch_.mirror();
  if (mirror == nullptr) return forward(frame, original, course);
  // Two readers: both get what is read once.
  const Frame flat = flatten(frame);
  forward_to(*mirror, flat, nullptr);
  return forward(flat, nullptr, course);
}

bool Ingress::may_enter(const Frame& frame, const Tagging& tagging) {
  const Mac source = peek_mac(&frame.head[6]);
  const std::optional<Mac>& only = station_.options.mac;
  if (!is_well_formed(frame, tagging)) return drop(Count::malformed), false;
  if (is_group(source) || (only && source != *only)) return drop(Count::bad_source), false;
  const bool is_foreign = tagging.has_tag && station_.options.vlan && (tagging.tci & 0xfff) != 0;
  if (is_foreign || tagging.vlan == 0 || !station_.carries(tagging.vlan))
    return drop(Count::wrong_vlan), false;
  if (station_.is_mirror) return drop(Count::not_allowed), false;
  if (!station_.may_send(crossing_.now(), frame.length)) return drop(Count::too_fast), false;
  return true;
}

// So that a tag can be put in or taken out whoever receives it.
bool Ingress::is_well_formed(const Frame& frame, const Tagging& tagging) const {
  if (!tagging.has_tag && frame.length > max_frame - vlan_tag) return false;
  if ((frame.offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0) return true;
  const size_t headers = ethernet_header + (tagging.has_tag ? vlan_tag : 0);
  return frame.offload.csum_start >= headers && frame.offload.csum_start <= UINT16_MAX - vlan_tag;
}

bool Ingress::drop(Count why) {
  tally_.add(why);
  return true;
}

void Ingress::learn(uint16_t vlan, Mac mac) {
  if (with_vlan(vlan, mac) == learned_ && crossing_.tick() == learned_at_) return;
  const auto learned = switch_.macs().learn(vlan, mac, station_.number, crossing_.tick());
  if (learned == MacTable::Learned::refused || learned == MacTable::Learned::held)
    tally_.add(Count::not_learned);
  learned_ = with_vlan(vlan, mac);
  learned_at_ = crossing_.tick();
}

bool Ingress::forward(const Frame& frame, Frame* original, const Course& course) {
  if (course.to != nullptr) {
    if (!may_reach(station_, *course.to, course.tagging.vlan)) return drop(Count::not_allowed);
    const Retagged retagged(frame, course.tagging, *course.to);
    return forward_to(*course.to, retagged.frame(), original);
  }
  if (may_flood()) flood(frame, course.tagging);
  return true;
}

Station* Ingress::find(uint16_t vlan, Mac to) {
  if (std::exchange(found_, with_vlan(vlan, to)) == with_vlan(vlan, to)) return found_at_;
  const auto number = switch_.macs().find(vlan, to, crossing_.tick());
  return found_at_ = number ? switch_.station(*number) : nullptr;
}

bool Ingress::forward_to(Station& to, const Frame& frame, Frame* original) {
  const uint16_t pair = pair_of(to, frame);
  const Station::Way& way = to.ways[pair];
  Crossing* const crossing = way.crossing.load(std::memory_order_acquire);
  if (crossing == nullptr) return drop(Count::not_running);
  if (crossing == &crossing_) return leave_through(*way.door, frame, original);
  return hand_over(*crossing, to, pair, frame, original);
}

bool Ingress::leave_through(Door& door, const Frame& frame, Frame* original) {
  if (door.pass(frame)) return true;
  if (!door.can_keep()) return door.lost(), true;
  Parcel* const parcel = parcel_for(frame, original);
  if (parcel == nullptr) return drop(Count::too_many);
  if (!door.accept(*parcel)) return original == nullptr;
  crossing_.release(*parcel);
  return true;
}

bool Ingress::hand_over(Crossing& crossing, Station& to, uint16_t pair, const Frame& frame, Frame* original) {
  Parcel* const parcel = parcel_for(frame, original);
  if (parcel == nullptr) return drop(Count::too_many);
  parcel->to = &to;
  parcel->pair = pair;
  crossing_.hand_over(crossing, *parcel);
  return original == nullptr;
}

// Refers to the original's pieces, for the original is not given back before the parcel ends.
Parcel* Ingress::parcel_for(const Frame& frame, Frame* original) {
  if (original == nullptr) return crossing_.copy(frame, switch_head);
  if (free_.empty()) return nullptr;
  Parcel& parcel = free_.pop();
  ++under_way_;
  parcel.original = original;
  parcel.offload = frame.offload;
  parcel.length = frame.length;
  std::ranges::copy(frame.head, parcel.own_head.begin());
  parcel.head = std::span(parcel.own_head).first(frame.head.size());
  parcel.pieces = frame.pieces;
  return &parcel;
}

void Ingress::release(Parcel& parcel) {
  --under_way_;
  free_.push(parcel);
}

void Ingress::ended(Parcel& parcel) {
  if (parcel.dropped != Count::end) tally_.add(parcel.dropped);
  Frame& original = *parcel.original;
  crossing_.release(parcel);
  original.done(original);
}

bool Ingress::may_flood() {
  if (std::exchange(flood_time_, crossing_.now()) != crossing_.now()) copies_left_ = copies_at_once;
  const auto turns = static_cast<int64_t>(crossing_.turn() - std::exchange(flood_turn_, crossing_.turn()));
  copies_left_ = std::min(copies_left_ + turns * copies_a_turn, copies_at_once);
  if (copies_left_ <= 0 || !station_.flood_packets.take(crossing_.now(), 1)) {
    drop(Count::storm);
    return false;
  }
  tally_.add(Count::flooded);
  return true;
}

void Ingress::flood(const Frame& frame, const Tagging& tagging) {
  const Frame flat = flatten(frame);
  const uint32_t hash = flow_hash(flat.head);
  crossing_.pass_to_all(flat, tagging, hash, station_);
  copies_left_ -= static_cast<int64_t>(crossing_.doors().size());
  for (size_t i = 0, count = switch_.crossing_count(); i < count; ++i) {
    Crossing& other = switch_.crossing(i);
    if (&other == &crossing_ || other.door_count() == 0) continue;
    Parcel* const parcel = crossing_.copy(flat, switch_head);
    if (parcel == nullptr) {
      drop(Count::too_many);
      continue;
    }
    parcel->to = nullptr;
    parcel->from = &station_;
    parcel->hash = hash;
    parcel->tagging = tagging;
    copies_left_ -= static_cast<int64_t>(other.door_count());
    crossing_.hand_over(other, *parcel);
  }
}

// In the crossing's first scratch, which may hold it already.
Frame Ingress::flatten(const Frame& frame) {
  std::byte* const scratch = crossing_.first_scratch();
  Frame flat = frame;
  if (frame.head.data() == scratch) return flat;
  copy_frame(frame, scratch);
  const size_t head = frame.head.size();
  flat.head = {scratch, head};
  crossing_.flat_piece() = {.iov_base = scratch + head, .iov_len = frame.length - head};
  flat.pieces = {&crossing_.flat_piece(), frame.length > head ? size_t{1} : size_t{0}};
  return flat;
}

void Ingress::drain() {
  if (under_way_ == 0) return;
  draining_.store(true, std::memory_order_seq_cst);
  for (Door* door : crossing_.doors()) door->recall();
  crossing_.send_now();
  for (size_t i = 0, count = switch_.crossing_count(); i < count; ++i) {
    if (&switch_.crossing(i) != &crossing_) switch_.crossing(i).recall();
  }
}

}  // namespace ringway::port
