#include "ringway/preload/backend_port.h"

#include <utility>

#include "ringway/device/port/null.h"
#include "ringway/device/port/tap.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::preload {

BackendPort::BackendPort() : nowhere_(port::open_null({})) {
  abilities_.takes = port::transmit_offloads;
  abilities_.gives = port::receive_offloads;
}

Result<> BackendPort::bind(uint32_t ring, UniqueFd backend) {
  backends_.at(ring).reset();
  if (!backend) return {};
  backends_[ring] = TRY(port::open_tap({.name = {}, .fd = std::move(backend), .as_it_is = true}));
  return {};
}

std::unique_ptr<port::Outlet> BackendPort::open_outlet(loop::Loop& loop, uint16_t pair) {
  return of(transmit).open_outlet(loop, pair);
}

std::unique_ptr<port::Inlet> BackendPort::open_inlet(loop::Loop& loop, uint16_t pair,
                                                     port::Receiver& receiver) {
  return of(receive).open_inlet(loop, pair, receiver);
}

}  // namespace ringway::preload
