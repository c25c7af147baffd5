#include "ringway/device/port/uplink.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "ringway/base/log.h"
#include "ringway/device/port/ingress.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

// What a switch can deal with: see switch.cc.
constexpr uint64_t wanted_offloads = receive_offloads & ~bit(VIRTIO_NET_F_GUEST_UFO);
constexpr auto drain_interval = std::chrono::microseconds(100);

}  // namespace

// Where frames leave the switch for the port behind an uplink. They are lent to it as they are.
class UplinkDoor final : public Door {
 public:
  UplinkDoor(Crossing& crossing, Station& station, uint16_t pair, Port& behind)
      : Door(crossing, station, pair),
        outlet_(behind.open_outlet(crossing.loop(), pair)),
        skills_(port_skills(behind.abilities().takes)),
        head_(behind.abilities().head) {}

  // A port behind may want to keep the frame.
  bool pass(const Frame&) override { return false; }
  [[nodiscard]] bool can_keep() const override { return true; }
  bool accept(Parcel& parcel) override {
    if (!station_.may_receive(crossing_.now(), parcel.length)) {
      tally_.add(Count::receives_too_fast);
      return true;
    }
    if ((skills_needed(parcel.offload) & ~skills_) != 0) {
      send_finished(parcel);
      return true;
    }
    if (head_ == 0 && join_head(parcel)) return send(parcel);
    send_copy(parcel);
    return true;
  }
  void recall() override { outlet_->drain(); }
  void flush() override { outlet_->flush(); }

  void came_back(Parcel& parcel) {
    --lent_;
    crossing_.end(parcel);
  }
  [[nodiscard]] size_t lent() const { return lent_; }

 private:
  void send_finished(const Frame& frame) {
    const auto send_part = [this](const Frame& part) {
      send_copy(part);
      return true;
    };
    if (finish(frame, crossing_.second_scratch(), send_part) == Finished::impossible)
      tally_.add(Count::not_finished);
  }
  void send_copy(const Frame& frame) {
    Parcel* const copy = crossing_.copy(frame, head_);
    if (copy == nullptr) {
      lost();
    } else if (send(*copy)) {
      crossing_.release(*copy);
    }
  }
  // The port behind has not asked for a head, so it is a piece like others. False: there are too many.
  static bool join_head(Parcel& parcel) {
    std::array<iovec, std::tuple_size_v<decltype(parcel.own_pieces)>> pieces;
    if (parcel.pieces.size() + 1 > pieces.size()) return false;
    pieces[0] = {.iov_base = const_cast<std::byte*>(parcel.head.data()), .iov_len = parcel.head.size()};
    std::ranges::copy(parcel.pieces, pieces.begin() + 1);
    const size_t count = parcel.pieces.size() + 1;
    parcel.own_pieces = pieces;
    parcel.head = {};
    parcel.pieces = std::span(parcel.own_pieces).first(count);
    return true;
  }
  bool send(Parcel& parcel) {
    parcel.lent_by = this;
    parcel.done = [](Frame& frame) {
      auto& lent = static_cast<Parcel&>(frame);
      lent.lent_by->came_back(lent);
    };
    passed(1, parcel.length);
    crossing_.flush_later(*this);
    if (outlet_->send(parcel) == Outlet::Sent::done) return true;
    ++lent_;
    return false;
  }

  const std::unique_ptr<Outlet> outlet_;
  const Skills skills_;
  const uint32_t head_;  // bytes
  size_t lent_ = 0;      // parcels
};

// One pair of queues of the port behind, on its worker.
class Uplink::Line final : public Receiver {
 public:
  Line(Switch& fabric, Crossing& crossing, Station& station, uint16_t pair, Port& behind, Start start)
      : loop_(crossing.loop()),
        buffer_(std::make_unique<std::byte[]>(max_frame)),  // NOLINT
        stands_still_(start == Start::by_go_on),
        ingress_(fabric, crossing, station),
        door_(crossing, station, pair, behind),
        inlet_(behind.open_inlet(loop_, pair, *this)) {}
  [[nodiscard]] loop::Loop& loop() { return loop_; }

  // Nothing comes any more. True when nothing is lent either.
  bool close() {
    inlet_.reset();
    door_.recall();
    return door_.lent() == 0;
  }

  void stand_still() { stands_still_ = true; }
  void go_on() {
    if (std::exchange(stands_still_, false)) inlet_->resume();
  }

  bool deliver(const Frame& frame) override {
    if (stands_still_) return false;
    copy_frame(frame, buffer_.get());
    return enter(frame.offload, frame.length);
  }
  std::span<const iovec> reserve(uint32_t bytes) override {
    if (stands_still_) return {};
    place_ = {.iov_base = buffer_.get(), .iov_len = std::min(bytes, max_frame)};
    return {&place_, 1};
  }
  bool commit(const Offload& offload, uint32_t length, std::span<const std::byte> rest) override {
    if (length + rest.size() > max_frame) return false;
    std::ranges::copy(rest, &buffer_[length]);
    return enter(offload, static_cast<uint32_t>(length + rest.size()));
  }
  [[nodiscard]] uint64_t accepts() const override { return wanted_offloads; }

 private:
  // The switch takes or drops whatever comes.
  bool enter(const Offload& offload, uint32_t length) {
    if (length < min_frame) return true;
    const size_t head = std::min<size_t>(length, switch_head);
    const iovec rest{.iov_base = buffer_.get() + head, .iov_len = length - head};
    const Frame frame{.offload = offload,
                      .length = length,
                      .head = {buffer_.get(), head},
                      .pieces = {&rest, length > head ? size_t{1} : size_t{0}}};
    ingress_.enter(frame, nullptr);
    return true;
  }

  loop::Loop& loop_;
  const std::unique_ptr<std::byte[]> buffer_;  // NOLINT: max_frame
  iovec place_{};
  bool stands_still_;
  Ingress ingress_;
  UplinkDoor door_;
  std::unique_ptr<Inlet> inlet_;
};

Uplink::Uplink(std::shared_ptr<Switch> fabric, std::unique_ptr<Port> behind, Station& station,
               std::vector<loop::Loop*> loops)
    : switch_(std::move(fabric)), behind_(std::move(behind)), station_(station), loops_(std::move(loops)) {}

Result<std::unique_ptr<Uplink>> Uplink::open(std::shared_ptr<Switch> fabric, std::unique_ptr<Port> behind,
                                             const StationOptions& options,
                                             std::span<loop::Loop* const> loops, Start start) {
  Station* const station = TRY(fabric->add_station(options));
  const size_t pairs = std::clamp<size_t>(std::min<size_t>(loops.size(), behind->abilities().pairs), 1,
                                          size_t{Station::max_pairs});
  std::unique_ptr<Uplink> uplink(
      new Uplink(std::move(fabric), std::move(behind), *station, {loops.begin(), loops.begin() + pairs}));
  if (start == Start::at_once) TRY(uplink->begin(start));
  return uplink;
}

Result<> Uplink::begin(Start start) {
  const auto pairs = static_cast<uint16_t>(loops_.size());
  TRY(behind_->wish({.offloads = behind_->abilities().gives & wanted_offloads, .pairs = pairs}));
  for (uint16_t pair = 0; pair < pairs; ++pair) {
    Result<> outcome;
    loops_[pair]->run([&] {
      const auto crossing = switch_->crossing_on(*loops_[pair]);
      if (!crossing) {
        outcome = std::unexpected(crossing.error());
        return;
      }
      lines_.push_back(std::make_unique<Line>(*switch_, **crossing, station_, pair, *behind_, start));
    });
    TRY(outcome);
  }
  station_.pairs.store(pairs);
  return {};
}

void Uplink::stand_still() {
  for (const auto& line : lines_) line->loop().run([&] { line->stand_still(); });
}

void Uplink::let_out() {
  if (!lines_.empty()) return;
  if (auto begun = begin(Start::by_go_on); !begun) log::error("an uplink: {}", begun.error().to_string());
}

void Uplink::go_on() {
  let_out();
  for (const auto& line : lines_) line->loop().run([&] { line->go_on(); });
}

Uplink::~Uplink() {
  for (auto& line : lines_) {
    for (bool closed = false; !closed; std::this_thread::sleep_for(drain_interval)) {
      line->loop().run([&] { closed = line->close(); });
    }
    loop::Loop& worker = line->loop();
    worker.run([&] { line.reset(); });
  }
  switch_->remove_station(station_);
}

std::vector<Counter> Uplink::counters() const {
  std::vector<Counter> counters = station_.counters();
  const auto more = behind_->counters();
  counters.insert(counters.end(), more.begin(), more.end());
  return counters;
}

}  // namespace ringway::port
