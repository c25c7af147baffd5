// Parcel: a frame on its way through a switch that does not end at once: handed to another worker, waiting
// for the receiver's buffers, or lent to the port behind an uplink. Either it refers to the bytes of a frame
// whose sender waits for it (Ingress), or it has a copy (Crossing). Each belongs to the crossing that made it
// and comes back there.
#pragma once

#include <array>
#include <atomic>
#include <utility>

#include "ringway/device/port/frame.h"
#include "ringway/device/port/offload.h"
#include "ringway/device/port/tagging.h"

namespace ringway::port {

class Ingress;
class UplinkDoor;

struct Parcel : Frame {
  Crossing* home = nullptr;
  Ingress* ingress = nullptr;    // whose frame it refers to; null: a copy
  Frame* original = nullptr;     // that frame
  std::byte* storage = nullptr;  // of a copy: copy_bytes
  UplinkDoor* lent_by = nullptr;

  Station* to = nullptr;  // null: to everybody but `from`
  const Station* from = nullptr;
  uint16_t pair = 0;
  uint32_t hash = 0;           // of its flow; to everybody
  Tagging tagging;             // to everybody: not yet as each wants it
  Count dropped = Count::end;  // why; counted where it came from
  uint64_t since = 0;          // ns, when it began to wait
  Parcel* link = nullptr;      // in a list

  std::array<std::byte, max_head> own_head;
  std::array<iovec, 18> own_pieces;
};

// Of a frame that went as far as a switch: the longest, with one tag more.
inline constexpr size_t copy_bytes = max_frame + vlan_tag;

// First in, first out. One thread.
class ParcelList {
 public:
  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] Parcel* first() const { return first_; }
  [[nodiscard]] size_t size() const { return size_; }
  void push(Parcel& parcel) {
    parcel.link = nullptr;
    (first_ == nullptr ? first_ : last_->link) = &parcel;
    last_ = &parcel;
    ++size_;
  }
  Parcel& pop() {
    --size_;
    Parcel& parcel = *first_;
    first_ = parcel.link;
    return parcel;
  }
  ParcelList take_all() { return std::exchange(*this, {}); }

 private:
  friend class ParcelInbox;
  Parcel* first_ = nullptr;
  Parcel* last_ = nullptr;
  size_t size_ = 0;
};

// Whole lists from many threads to one; what is taken out is in the order of each sender.
class ParcelInbox {
 public:
  // Any thread. Nothing is left in `parcels`, which are not none.
  void push(ParcelList parcels);
  [[nodiscard]] bool empty() const { return newest_.load(std::memory_order_seq_cst) == nullptr; }
  // Any thread, but whoever takes them has them.
  ParcelList take_all();

 private:
  std::atomic<Parcel*> newest_ = nullptr;  // linked to the older ones
};

}  // namespace ringway::port
