// Crossing: frames on their way to a receive queue of another worker. Memory for all of them is taken at the
// start. Any thread.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

#include "ringway/base/mapping.h"
#include "ringway/device/net/hash.h"
#include "ringway/device/port/frame.h"
#include "ringway/loop/loop.h"

namespace ringway::net {

class Crossing : public std::enable_shared_from_this<Crossing> {
 public:
  static constexpr size_t capacity = 64;  // frames

  struct Arrival {
    port::Offload offload;
    HashResult hash;
    std::span<const std::byte> bytes;
  };

  static Result<std::shared_ptr<Crossing>> make();

  // A copy of head, then of pieces without their first `skip` bytes. False: there is no room.
  bool send(const port::Frame& frame, size_t skip, const HashResult& hash);
  // On the receiving worker's thread: `arrived` is called there when frames have come.
  void plug(loop::Loop& worker, std::function<void()> arrived);
  void unplug();
  // Receiving side: the oldest frame, which stays until drop_front(). Empty bytes: there is none.
  [[nodiscard]] Arrival front();
  void drop_front();

 private:
  explicit Crossing(Mapping storage) : storage_(std::move(storage)) {}
  std::byte* slot(uint64_t number) { return storage_.data() + number % capacity * port::max_frame; }
  void tell();

  Mapping storage_;
  std::mutex mutex_;  // guards what follows, and slots from taken_ on while they are filled
  std::array<Arrival, capacity> arrivals_{};
  uint64_t sent_ = 0;
  uint64_t taken_ = 0;
  loop::Loop* worker_ = nullptr;  // null: nobody receives
  std::function<void()> arrived_;
  bool told_ = false;  // a task on the worker's way will call arrived_
};

}  // namespace ringway::net
