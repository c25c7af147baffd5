// KickWaiter: starts a ring of a LocalDevice when a notification comes that no message brings. Made and ended
// by the control thread; waits on the control loop, which may wait for workers.
#pragma once

#include "ringway/base/log.h"
#include "ringway/engine/local_device.h"

namespace ringway::engine {

// Its first kick, from front-ends that follow the older rule and send SET_VRING_KICK before the rest; or that
// its pages are here, in postcopy.
class LocalDevice::KickWaiter final : public loop::Source {
 public:
  KickWaiter(LocalDevice& device, uint16_t index, std::shared_ptr<const Signal> kick)
      : device_(device), index_(index), kick_(std::move(kick)) {
    on_control([this] {
      control().add(*this);
      if (auto watched = control().watch(*this, *kick_); !watched)
        log::warning("{}", watched.error().to_string());
    });
  }
  ~KickWaiter() override {
    on_control([this] {
      control().unwatch(*this);
      control().remove(*this);
    });
  }

  // On the control loop's own thread, also in poll(): hears of nothing any more. It is ended by another
  // thread.
  [[nodiscard]] bool waits() const { return !retired_; }
  void retire() {
    retired_ = true;
    control().unwatch(*this);
  }

 private:
  bool poll() override {
    if (retired_) return false;
    // The holder of the lock may be waiting for this very thread: try again in the next turn.
    const std::unique_lock lock(device_.mutex_, std::try_to_lock);
    if (!lock) return true;
    const memory::FaultGuard::Work work;
    device_.on_waiting_kick(index_);
    return false;
  }
  // It may be made by a waiter that is at work.
  template <class F>
  void on_control(F&& f) {
    if (control().is_current()) return f();
    control().run(std::forward<F>(f));
  }
  bool park() override { return true; }
  void unpark() override {}
  loop::Loop& control() { return device_.workers_.control(); }

  LocalDevice& device_;
  const uint16_t index_;
  const std::shared_ptr<const Signal> kick_;
  bool retired_ = false;  // the control loop's
};

}  // namespace ringway::engine
