// Team: the receive queues of a device that run, so that each can pass on a frame that belongs to another.
// Seats are taken and left on the worker of the queue; everything else on any worker.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "ringway/device/net/crossing.h"

namespace ringway::net {

class ReceiveQueue;

class Team {
 public:
  static constexpr uint16_t seats = 128;

  explicit Team(uint16_t pairs) : alone_(pairs == 1) {}

  // `arrived` is called on the worker when frames have come from others; arrival() has them.
  void sit(uint16_t pair, ReceiveQueue& queue, loop::Loop& worker, std::function<void()> arrived);
  void leave(uint16_t pair);

  // How many sit.
  [[nodiscard]] uint16_t size() const { return size_.load(std::memory_order_relaxed); }
  // The queue of the pair, if it is on this worker, on whose thread the caller is.
  [[nodiscard]] ReceiveQueue* here(uint16_t pair, const loop::Loop& worker) const;
  // To the queue of the pair on whatever worker: see Crossing::send. False: dropped.
  bool send(uint16_t pair, const port::Frame& frame, size_t skip, const HashResult& hash);
  // What was sent to the queue of this pair. It must sit.
  [[nodiscard]] Crossing& arrivals(uint16_t pair);

 private:
  struct Seat {
    std::atomic<loop::Loop*> worker = nullptr;
    ReceiveQueue* queue = nullptr;  // touched on its worker only
  };
  const bool alone_;  // nobody else to get frames from
  std::array<Seat, seats> all_{};
  std::atomic<uint16_t> size_ = 0;
  std::mutex mutex_;                                          // guards crossings_
  std::array<std::shared_ptr<Crossing>, seats> crossings_{};  // made when the pair sits for the first time
};

}  // namespace ringway::net
