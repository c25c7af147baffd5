#include "ringway/device/net/crossing.h"

#include <algorithm>
#include <utility>

#include "ringway/memory/shared_bytes.h"

namespace ringway::net {

Result<std::shared_ptr<Crossing>> Crossing::make() {
  Mapping storage = TRY(Mapping::anonymous(capacity * port::max_frame));
  return std::shared_ptr<Crossing>(new Crossing(std::move(storage)));
}

bool Crossing::send(const port::Frame& frame, size_t skip, const HashResult& hash) {
  const std::scoped_lock lock(mutex_);
  if (worker_ == nullptr || sent_ - taken_ == capacity) return false;
  std::byte* to = slot(sent_);
  const auto append = [&](const void* from, size_t length) {
    memory::copy_out(to, from, length);
    to += length;
  };
  append(frame.head.data(), frame.head.size());
  for (const iovec& piece : frame.pieces) {
    const size_t passed = std::min(skip, piece.iov_len);
    skip -= passed;
    append(static_cast<const std::byte*>(piece.iov_base) + passed, piece.iov_len - passed);
  }
  const std::byte* const from = slot(sent_);
  arrivals_[sent_ % capacity] = {frame.offload, hash, {from, to}};
  ++sent_;
  tell();
  return true;
}

void Crossing::plug(loop::Loop& worker, std::function<void()> arrived) {
  const std::scoped_lock lock(mutex_);
  worker_ = &worker;
  arrived_ = std::move(arrived);
}

void Crossing::unplug() {
  const std::scoped_lock lock(mutex_);
  worker_ = nullptr;
  arrived_ = nullptr;
  taken_ = sent_;
}

Crossing::Arrival Crossing::front() {
  const std::scoped_lock lock(mutex_);
  return sent_ == taken_ ? Arrival() : arrivals_[taken_ % capacity];
}

void Crossing::drop_front() {
  const std::scoped_lock lock(mutex_);
  ++taken_;
}

// With the lock. The task may come when the receiver has gone, or the whole device.
void Crossing::tell() {
  if (std::exchange(told_, true)) return;
  worker_->post([crossing = shared_from_this()] {
    std::function<void()> arrived;
    {
      const std::scoped_lock lock(crossing->mutex_);
      crossing->told_ = false;
      arrived = crossing->arrived_;
    }
    // Whoever is plugged in unplugs on this thread, so it is still there.
    if (arrived) arrived();
  });
}

}  // namespace ringway::net
