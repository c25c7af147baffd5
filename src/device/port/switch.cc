#include "ringway/device/port/switch.h"

#include <algorithm>
#include <cassert>

#include "ringway/base/log.h"
#include "ringway/device/port/ingress.h"
#include "ringway/device/port/offload.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

constexpr uint64_t max_wait = 20'000'000;  // ns, for buffers
constexpr size_t max_waiting = 256;        // parcels
constexpr size_t max_copies_waiting = 16;

// UFO frames would have to be cut into IP fragments, so nobody is told to send them.
constexpr Abilities switch_abilities{.takes = transmit_offloads & ~bit(VIRTIO_NET_F_HOST_UFO),
                                     .gives = receive_offloads & ~bit(VIRTIO_NET_F_GUEST_UFO),
                                     .pairs = Station::max_pairs,
                                     .head = switch_head};

// A device's running receive queue.
class GuestDoor final : public Door, public Inlet {
 public:
  GuestDoor(Crossing& crossing, Station& station, uint16_t pair, Receiver& receiver)
      : Door(crossing, station, pair), receiver_(receiver) {}
  ~GuestDoor() override {
    while (!waiting_.empty()) give_up(take_first());
  }

  bool pass(const Frame& frame) override {
    if (!waiting_.empty()) return false;
    if (!station_.may_receive(crossing_.now(), frame.length)) {
      tally_.add(Count::receives_too_fast);
      return true;
    }
    return deliver(frame);
  }
  size_t pass_batch(std::span<const Frame* const> frames) override {
    if (!waiting_.empty() || station_.has_limits) return 0;
    size_t count = 0;
    while (count < frames.size() && is_plain(frames[count]->offload)) ++count;
    if (count < frames.size()) {
      const Skills skills = driver_skills(receiver_.accepts());
      while (count < frames.size() && goes_as_it_is(*frames[count], skills)) ++count;
    }
    count = receiver_.deliver_batch(frames.first(count));
    uint64_t bytes = 0;
    for (const Frame* frame : frames.first(count)) bytes += frame->length;
    passed(count, bytes);
    return count;
  }
  void expect(size_t frames) override {
    fetch_tally();
    receiver_.expect(frames);
  }
  [[nodiscard]] bool can_keep() const override { return waiting_.size() < max_waiting; }
  bool accept(Parcel& parcel) override {
    if (pass(parcel)) return true;
    if (!may_wait(parcel)) {
      lost();
      return true;
    }
    parcel.since = crossing_.now();
    if (parcel.ingress == nullptr) ++copies_waiting_;
    waiting_.push(parcel);
    crossing_.expire_later();
    return false;
  }
  void resume() override {
    crossing_.begin();
    while (!waiting_.empty() && deliver(*waiting_.first())) crossing_.end(take_first());
  }
  void recall() override {
    for (ParcelList parcels = waiting_.take_all(); !parcels.empty();) {
      Parcel& parcel = parcels.pop();
      if (parcel.ingress != nullptr && parcel.ingress->is_draining()) {
        give_up(parcel);
      } else {
        waiting_.push(parcel);
      }
    }
  }
  void expire(uint64_t now) override {
    while (!waiting_.empty() && now - waiting_.first()->since > max_wait) give_up(take_first());
    if (!waiting_.empty()) crossing_.expire_later();
  }

 private:
  // An ingress that drains cannot wait, and copies are few.
  [[nodiscard]] bool may_wait(const Parcel& parcel) const {
    if (!can_keep()) return false;
    return parcel.ingress == nullptr ? copies_waiting_ < max_copies_waiting : !parcel.ingress->is_draining();
  }
  Parcel& take_first() {
    Parcel& parcel = waiting_.pop();
    if (parcel.ingress == nullptr) --copies_waiting_;
    return parcel;
  }
  void give_up(Parcel& parcel) {
    lost();
    crossing_.end(parcel);
  }

  static bool goes_as_it_is(const Frame& frame, Skills skills) {
    return is_plain(frame.offload) ||
           ((skills_needed(frame.offload) & ~skills) == 0 && (skills & skill_checksum) != 0);
  }
  bool deliver(const Frame& frame) {
    if (is_plain(frame.offload)) return deliver_as_it_is(frame);
    const Skills skills = driver_skills(receiver_.accepts());
    if (goes_as_it_is(frame, skills)) return deliver_as_it_is(frame);
    if ((skills_needed(frame.offload) & ~skills) != 0) return deliver_finished(frame);
    Frame plain = frame;  // the driver does not want to hear that it was checked
    plain.offload = {};
    return deliver_as_it_is(plain);
  }
  bool deliver_as_it_is(const Frame& frame) {
    if (!receiver_.deliver(frame)) return false;
    passed(1, frame.length);
    return true;
  }
  bool deliver_finished(const Frame& frame) {
    bool is_first = true;
    const auto deliver_one = [&](const Frame& part) {
      if (!deliver_as_it_is(part)) return false;
      is_first = false;
      return true;
    };
    const auto finished = finish(frame, crossing_.second_scratch(), deliver_one);
    if (finished == Finished::impossible) tally_.add(Count::not_finished);
    if (finished != Finished::stopped) return true;
    if (!is_first) lost();
    return !is_first;
  }

  Receiver& receiver_;
  ParcelList waiting_;         // for buffers
  size_t copies_waiting_ = 0;  // of them
};

class GuestOutlet final : public Outlet {
 public:
  GuestOutlet(Switch& fabric, Crossing& crossing, Station& station) : ingress_(fabric, crossing, station) {}
  Sent send(Frame& frame) override { return ingress_.enter(frame, &frame) ? Sent::done : Sent::later; }
  void send_batch(std::span<Frame* const> frames, std::span<Sent> sent) override {
    ingress_.enter_batch(frames, sent);
  }
  void drain() override { ingress_.drain(); }

 private:
  Ingress ingress_;
};

// Where there are no means to run a switch: frames are dropped.
class DeadEnd final : public Outlet, public Inlet {
 public:
  Sent send(Frame&) override { return Sent::done; }
  void resume() override {}
};

class SwitchPort final : public Port {
 public:
  SwitchPort(std::shared_ptr<Switch> fabric, Station& station)
      : switch_(std::move(fabric)), station_(station) {}
  ~SwitchPort() override { switch_->remove_station(station_); }

  [[nodiscard]] const Abilities& abilities() const override { return switch_abilities; }
  Result<> wish(const Wishes& wishes) override {
    station_.pairs.store(std::clamp<uint16_t>(wishes.pairs, 1, Station::max_pairs));
    return {};
  }
  std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t) override {
    Crossing* const crossing = crossing_on(loop);
    if (crossing == nullptr) return std::make_unique<DeadEnd>();
    return std::make_unique<GuestOutlet>(*switch_, *crossing, station_);
  }
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) override {
    Crossing* const crossing = crossing_on(loop);
    if (crossing == nullptr || pair >= Station::max_pairs) return std::make_unique<DeadEnd>();
    return std::make_unique<GuestDoor>(*crossing, station_, pair, receiver);
  }
  [[nodiscard]] std::vector<Counter> counters() const override { return station_.counters(); }

  // There is nothing to give.
  [[nodiscard]] Result<HandedPort> hand_over() const override { return HandedPort{}; }

 private:
  Crossing* crossing_on(loop::Loop& loop) {
    const auto crossing = switch_->crossing_on(loop);
    if (!crossing) log::error("a switch cannot work on another worker: {}", crossing.error().to_string());
    return crossing ? *crossing : nullptr;
  }

  const std::shared_ptr<Switch> switch_;
  Station& station_;
};

}  // namespace

std::shared_ptr<Switch> Switch::make(const Options& options) {
  return std::shared_ptr<Switch>(new Switch(options));
}

Switch::Switch(const Options& options)
    : macs_({.limit = std::max<size_t>(options.mac_limit, 8),
             .ageing = options.ageing_seconds * MacTable::ticks_per_second,
             .stations = max_stations}) {}
Switch::~Switch() = default;

Result<std::unique_ptr<Port>> Switch::plug(const StationOptions& options) {
  Station* const station = TRY(add_station(options));
  return std::make_unique<SwitchPort>(shared_from_this(), *station);
}

Result<Station*> Switch::add_station(const StationOptions& options) {
  const std::scoped_lock lock(mutex_);
  if (all_stations_.size() == max_stations) return refused("a switch has no more ports", max_stations);
  if (options.mirror && mirror() != nullptr) return refused("a switch has one mirror port");
  const auto number = static_cast<uint16_t>(all_stations_.size());
  Station& station = *all_stations_.emplace_back(std::make_unique<Station>(number, options));
  stations_[number].store(&station, std::memory_order_release);
  if (options.mirror) mirror_.store(&station, std::memory_order_release);
  return &station;
}

// The station itself stays, for others may look at it just now.
void Switch::remove_station(const Station& station) {
  const std::scoped_lock lock(mutex_);
  stations_[station.number].store(nullptr, std::memory_order_release);
  if (mirror() == &station) mirror_.store(nullptr, std::memory_order_release);
  macs_.forget(station.number);
}

Result<Crossing*> Switch::crossing_on(loop::Loop& loop) {
  const std::scoped_lock lock(mutex_);
  const size_t count = crossing_count();
  for (size_t i = 0; i < count; ++i) {
    if (&crossings_[i]->loop() == &loop) return crossings_[i].get();
  }
  if (count == max_crossings) return refused("a switch is on so many workers already", count);
  crossings_[count] = TRY(Crossing::make(count, loop));
  crossing_count_.store(count + 1, std::memory_order_release);
  return crossings_[count].get();
}

}  // namespace ringway::port
