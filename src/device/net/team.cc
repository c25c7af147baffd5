#include "ringway/device/net/team.h"

#include <cassert>

#include "ringway/base/log.h"

namespace ringway::net {

void Team::sit(uint16_t pair, ReceiveQueue& queue, loop::Loop& worker, std::function<void()> arrived) {
  Seat& seat = all_[pair];
  seat.queue = &queue;
  seat.worker = &worker;
  ++size_;
  if (alone_) return;
  const std::scoped_lock lock(mutex_);
  if (!crossings_[pair]) {
    auto made = Crossing::make();
    if (!made) return log::warning("frames cannot reach queue {}: {}", pair, made.error().to_string());
    crossings_[pair] = *std::move(made);
  }
  crossings_[pair]->plug(worker, std::move(arrived));
}

void Team::leave(uint16_t pair) {
  --size_;
  all_[pair].worker = nullptr;
  all_[pair].queue = nullptr;
  const std::scoped_lock lock(mutex_);
  if (crossings_[pair]) crossings_[pair]->unplug();
}

ReceiveQueue* Team::here(uint16_t pair, const loop::Loop& worker) const {
  const Seat& seat = all_[pair];
  return seat.worker == &worker ? seat.queue : nullptr;
}

bool Team::send(uint16_t pair, const port::Frame& frame, size_t skip, const HashResult& hash) {
  std::shared_ptr<Crossing> crossing;
  {
    const std::scoped_lock lock(mutex_);
    crossing = crossings_[pair];
  }
  return crossing && crossing->send(frame, skip, hash);
}

Crossing& Team::arrivals(uint16_t pair) {
  const std::scoped_lock lock(mutex_);
  assert(crossings_[pair]);
  return *crossings_[pair];
}

}  // namespace ringway::net
