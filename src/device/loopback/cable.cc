#include "ringway/device/loopback/cable.h"

#include <utility>

#include "ringway/loop/loop.h"

namespace ringway::loopback {

Result<std::shared_ptr<Cable>> Cable::make() {
  Mapping storage = TRY(Mapping::anonymous(capacity * max_frame));
  return std::shared_ptr<Cable>(new Cable(std::move(storage)));
}

void Cable::send(ring::Reader frame) {
  const uint64_t length = frame.remaining();
  if (length == 0 || length > max_frame) return;
  {
    const std::scoped_lock lock(mutex_);
    if (sent_ - taken_ == capacity) return;
  }
  // Only this side adds, so the place stays free.
  frame.read({slot(sent_), length});
  lengths_[sent_ % capacity] = length;
  const std::scoped_lock lock(mutex_);
  ++sent_;
  tell();
}

void Cable::plug(Receiver& receiver, loop::Loop& worker) {
  const std::scoped_lock lock(mutex_);
  receiver_ = &receiver;
  worker_ = &worker;
  if (sent_ != taken_) tell();
}

void Cable::unplug() {
  const std::scoped_lock lock(mutex_);
  receiver_ = nullptr;
}

std::span<const std::byte> Cable::front() {
  const std::scoped_lock lock(mutex_);
  if (sent_ == taken_) return {};
  return {slot(taken_), lengths_[taken_ % capacity]};
}

void Cable::drop_front() {
  const std::scoped_lock lock(mutex_);
  ++taken_;
}

// With the lock. The task may come when the receiver has gone, or the whole device.
void Cable::tell() {
  if (receiver_ == nullptr || std::exchange(told_, true)) return;
  worker_->post([cable = shared_from_this()] {
    Receiver* receiver = nullptr;
    {
      const std::scoped_lock lock(cable->mutex_);
      cable->told_ = false;
      receiver = cable->receiver_;
    }
    // Whoever is plugged in unplugs on this thread, so it is still there.
    if (receiver != nullptr) receiver->deliver();
  });
}

}  // namespace ringway::loopback
