// Crossing: what a switch has on one worker: the doors of the queues that run there, and the parcels that
// come from and go to other workers. Owned by its loop's thread, except where a function says otherwise.
// Lives as long as the switch.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/base/notifier.h"
#include "ringway/device/port/parcel.h"
#include "ringway/loop/loop.h"

namespace ringway::port {

// Where frames leave a switch: a running receive queue of a device, or a port behind an uplink.
class alignas(64) Door {
 public:
  Door(Crossing& crossing, Station& station, uint16_t pair);
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;
  virtual ~Door();

  [[nodiscard]] const Station& station() const { return station_; }
  [[nodiscard]] uint16_t pair() const { return pair_; }

  // Lets a frame through whose bytes are good during the call only. False: not now, but accept() may keep it.
  virtual bool pass(const Frame& frame) = 0;
  // The first of several, in this order, as long as they need nothing but delivering; how many that was. The
  // rest is for pass().
  virtual size_t pass_batch(std::span<const Frame* const> frames) { return (void)frames, 0; }
  // So many frames more may be passed soon.
  virtual void expect(size_t frames) { (void)frames; }
  // A frame for it found no place.
  void lost() { tally_.add(Count::no_buffers); }
  // Whether accept() may keep a parcel when pass() has failed. If not, the frame is lost.
  [[nodiscard]] virtual bool can_keep() const = 0;
  // True: it has ended. False: it is kept, and will end in Crossing::end().
  virtual bool accept(Parcel& parcel) = 0;
  // Parcels of ingresses that drain end soon.
  virtual void recall() = 0;
  // Parcels that have waited too long end.
  virtual void expire(uint64_t now) { (void)now; }
  // At the end of a turn in which it asked for that.
  virtual void flush() {}

 protected:
  void passed(uint64_t frames, uint64_t bytes) {
    tally_.add(Count::received, frames);
    tally_.add(Count::received_bytes, bytes);
  }
  void fetch_tally() const { __builtin_prefetch(&tally_, 1); }
  Crossing& crossing_;
  Station& station_;
  const uint16_t pair_;
  Tally& tally_;
};

class Crossing final : private loop::Source, private loop::Deferred {
 public:
  static constexpr size_t copies = 256;  // parcels with a copy that may be under way
  static constexpr size_t parcels_a_turn = 256;

  // Any thread.
  static Result<std::unique_ptr<Crossing>> make(size_t index, loop::Loop& loop);
  ~Crossing() override = default;
  [[nodiscard]] loop::Loop& loop() const { return loop_; }

  // Whoever is on this worker. When all have left, parcels that still come are sent back.
  void enter();
  void leave();

  // Something begins: what is gathered goes out at the end of the turn.
  void begin();
  [[nodiscard]] uint64_t now() const { return now_; }    // ns, as it was when the turn began
  [[nodiscard]] uint32_t tick() const { return tick_; }  // of MacTable
  [[nodiscard]] uint64_t turn() const { return turn_; }

  void add(Door& door);
  void remove(Door& door);
  [[nodiscard]] std::span<Door* const> doors() const { return doors_; }
  [[nodiscard]] size_t door_count() const {
    return door_count_.load(std::memory_order_relaxed);
  }  // any thread
  void flush_later(Door& door);
  void expire_later();

  // Places for one frame each: the first for its sender's side, the second for a door.
  [[nodiscard]] std::byte* first_scratch() { return scratch_.data(); }
  [[nodiscard]] std::byte* second_scratch() { return scratch_.data() + scratch_bytes; }

  // Of what is in the first scratch.
  [[nodiscard]] iovec& flat_piece() { return flat_piece_; }

  // A parcel with a copy, the first `head` bytes of it as its head; null: too many are under way.
  [[nodiscard]] Parcel* copy(const Frame& frame, size_t head);
  void hand_over(Crossing& to, Parcel& parcel);
  // Of any home: it is not needed here any more. Tells its sender, now or on its own worker.
  void end(Parcel& parcel);
  // Of this home, and without telling its sender.
  void release(Parcel& parcel);
  // Sends everybody on this worker who may get it the frame. The number of those that could not take it is
  // counted at their doors.
  void pass_to_all(const Frame& frame, const Tagging& tagging, uint32_t hash, const Station& from);

  // What was gathered goes out before the turn ends.
  void send_now() { send_outgoing(); }

  // Any thread.
  void recall();
  void take_in(ParcelList parcels) { arrive(arrived_, parcels); }
  void take_back(ParcelList parcels) { arrive(returned_, parcels); }

 private:
  static constexpr size_t scratch_bytes = (copy_bytes + 4095) / 4096 * 4096;
  struct Outgoing {
    Crossing* to = nullptr;
    ParcelList parcels;
    ParcelList returned;
  };

  Crossing(size_t index, loop::Loop& loop, Mapping scratch, Mapping storage, Signal signal,
           Notifier notifier);
  bool poll() override;
  bool park() override;
  void unpark() override { asleep_.store(false, std::memory_order_relaxed); }
  void end_of_turn() override;
  void arrive(ParcelInbox& inbox, ParcelList parcels);
  void bounce();
  bool deal_with_returned();
  bool deal_with_arrived();
  void deliver(Parcel& parcel);
  void pass_or_keep(Door& door, const Frame& frame);
  Outgoing& outgoing(Crossing& to);
  void send_outgoing();
  void expire();

  const size_t index_;
  loop::Loop& loop_;
  const Mapping scratch_;
  const Mapping storage_;  // of the copies
  const Signal signal_;    // ends a sleep
  const Notifier notifier_;
  bool is_watched_ = false;

  unsigned users_ = 0;
  std::vector<Door*> doors_;
  std::atomic<size_t> door_count_ = 0;
  std::vector<Door*> to_flush_;
  std::deque<Outgoing> outgoing_;  // by the index of the other crossing
  std::vector<Outgoing*> not_sent_;
  ParcelList arriving_;                // taken in, not dealt with yet
  std::unique_ptr<Parcel[]> parcels_;  // NOLINT: a fixed number
  ParcelList free_;
  iovec flat_piece_{};
  bool begun_ = false;
  uint64_t now_ = 0;
  uint32_t tick_ = 0;
  uint64_t turn_ = 0;
  uint64_t timer_ = 0;  // 0: none runs

  alignas(64) ParcelInbox arrived_;
  ParcelInbox returned_;
  std::atomic<bool> recalled_ = false;
  std::atomic<bool> asleep_ = false;
  std::atomic<bool> open_ = false;
};

// Whether a frame of one may reach the other, by what they are and not by where its address points.
[[nodiscard]] bool may_reach(const Station& from, const Station& to, uint16_t vlan);
// The pair that a flow goes to. Its queue runs where the station says, if it does at all.
[[nodiscard]] uint16_t pair_for(const Station& to, uint32_t hash);

}  // namespace ringway::port
