// BackendPort: a port whose ends come later, by VHOST_NET_SET_BACKEND, each for one ring, and go again. What
// it is told of offloads it keeps to itself: that is between the backend's owner and the guest. Thread rule:
// as Port; bind() on the control thread, while the ring's queue is not open.
#pragma once

#include <array>
#include <memory>

#include "ringway/base/unique_fd.h"
#include "ringway/device/port/port.h"

namespace ringway::preload {

class BackendPort final : public port::Port {
 public:
  static constexpr uint32_t receive = 0;  // rings
  static constexpr uint32_t transmit = 1;

  BackendPort();
  // A tap, a macvtap, a tun or a packet socket; none: what `ring` transmits goes nowhere, and nothing comes.
  // After an error the ring has none.
  Result<> bind(uint32_t ring, UniqueFd backend);

  [[nodiscard]] const port::Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<port::Outlet> open_outlet(loop::Loop& loop, uint16_t pair) override;
  std::unique_ptr<port::Inlet> open_inlet(loop::Loop& loop, uint16_t pair, port::Receiver& receiver) override;

 private:
  [[nodiscard]] port::Port& of(uint32_t ring) const { return backends_[ring] ? *backends_[ring] : *nowhere_; }
  port::Abilities abilities_;
  const std::unique_ptr<port::Port> nowhere_;
  std::array<std::unique_ptr<port::Port>, 2> backends_;  // by ring
};

}  // namespace ringway::preload
