// LateTap: a port whose tap comes later, by VHOST_NET_SET_BACKEND, and goes again. What it is told of
// offloads it keeps to itself: that is between the tap's owner and the guest. Thread rule: as Port; take()
// and give_back() on the control thread, while no queue is open.
#pragma once

#include <memory>

#include "ringway/base/unique_fd.h"
#include "ringway/device/port/port.h"

namespace ringway::preload {

class LateTap final : public port::Port {
 public:
  LateTap();
  // Refuses what is no tap, and one whose headers do not have 12 bytes.
  Result<> take(UniqueFd tap);
  void give_back() { tap_.reset(); }
  [[nodiscard]] bool has_tap() const { return tap_ != nullptr; }

  [[nodiscard]] const port::Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<port::Outlet> open_outlet(loop::Loop& loop, uint16_t pair) override;
  std::unique_ptr<port::Inlet> open_inlet(loop::Loop& loop, uint16_t pair, port::Receiver& receiver) override;

 private:
  [[nodiscard]] port::Port& present() const { return tap_ ? *tap_ : *nowhere_; }
  port::Abilities abilities_;
  const std::unique_ptr<port::Port> nowhere_;
  std::unique_ptr<port::Port> tap_;
};

}  // namespace ringway::preload
