// Ingress: where the frames of one queue of a station enter the switch. Owned by its loop's thread.
#pragma once

#include <memory>

#include "ringway/device/port/crossing.h"
#include "ringway/device/port/switch.h"

namespace ringway::port {

class Ingress {
 public:
  static constexpr size_t max_under_way = 512;
  // Frames sent to everybody may make so many copies in a turn, as many as a queue sends frames otherwise: so
  // a storm takes no more of the worker's time than any guest may. Who has not sent any for a while may send
  // more at once.
  static constexpr int64_t copies_a_turn = 128;
  static constexpr int64_t copies_at_once = 2048;

  Ingress(Switch& fabric, Crossing& crossing, Station& station);
  Ingress(const Ingress&) = delete;
  Ingress& operator=(const Ingress&) = delete;
  ~Ingress();

  // `frame` has its head. `original`: the same frame, which can wait; null: its bytes are good during the
  // call only. False: it will end in Frame::done().
  bool enter(const Frame& frame, Frame* original);
  // Outlet::send_batch of frames that have their heads and can wait. Where they go is looked up for all of
  // them first, so that the cache misses of one overlap with those of the others: with many stations each
  // frame touches another one's.
  void enter_batch(std::span<Frame* const> frames, std::span<Outlet::Sent> sent);
  // All frames that have not ended will soon.
  void drain();
  // Any thread: parcels of it are not kept waiting.
  [[nodiscard]] bool is_draining() const { return draining_.load(std::memory_order_relaxed); }

  // A parcel of its has come home.
  void ended(Parcel& parcel);
  void release(Parcel& parcel);

 private:
  // Where a frame that may enter goes.
  struct Course {
    Tagging tagging;
    Station* to;  // null: to everybody
  };
  class Batch;
  void begin();
  // False: it was dropped.
  bool set_course(const Frame& frame, Course& course);
  [[nodiscard]] Station* find(uint16_t vlan, Mac to);  // null: nobody is known to have it
  [[nodiscard]] bool may_enter(const Frame& frame, const Tagging& tagging);
  [[nodiscard]] bool is_well_formed(const Frame& frame, const Tagging& tagging) const;
  bool drop(Count why);
  void learn(uint16_t vlan, Mac mac);
  bool go(const Frame& frame, Frame* original, const Course& course);
  bool forward(const Frame& frame, Frame* original, const Course& course);
  bool forward_to(Station& to, const Frame& frame, Frame* original);
  bool leave_through(Door& door, const Frame& frame, Frame* original);
  bool hand_over(Crossing& crossing, Station& to, uint16_t pair, const Frame& frame, Frame* original);
  void flood(const Frame& frame, const Tagging& tagging);
  [[nodiscard]] bool may_flood();
  [[nodiscard]] Frame flatten(const Frame& frame);
  Parcel* parcel_for(const Frame& frame, Frame* original);

  Switch& switch_;
  Crossing& crossing_;
  Station& station_;
  Tally& tally_;
  std::unique_ptr<Parcel[]> parcels_;  // NOLINT: a fixed number
  ParcelList free_;
  size_t under_way_ = 0;
  std::atomic<bool> draining_ = false;
  Mac learned_ = 0;  // with its VLAN, at learned_at_
  uint32_t learned_at_ = 0;
  Mac found_ = 0;  // with its VLAN, in the present batch; 0: nothing yet
  Station* found_at_ = nullptr;
  uint64_t flood_turn_ = 0;  // of the last frame to everybody
  uint64_t flood_time_ = 0;  // as the crossing tells it
  int64_t copies_left_ = 0;  // less than 0: the next turns pay for it
};

}  // namespace ringway::port
