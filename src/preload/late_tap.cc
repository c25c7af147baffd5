#include "ringway/preload/late_tap.h"

#include <utility>

#include "ringway/device/port/null.h"
#include "ringway/device/port/tap.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::preload {

LateTap::LateTap() : nowhere_(port::open_null({})) {
  abilities_.takes = port::transmit_offloads;
  abilities_.gives = port::receive_offloads;
}

Result<> LateTap::take(UniqueFd tap) {
  tap_ = TRY(port::open_tap({.name = {}, .fd = std::move(tap), .as_it_is = true}));
  return {};
}

std::unique_ptr<port::Outlet> LateTap::open_outlet(loop::Loop& loop, uint16_t pair) {
  return present().open_outlet(loop, pair);
}

std::unique_ptr<port::Inlet> LateTap::open_inlet(loop::Loop& loop, uint16_t pair, port::Receiver& receiver) {
  return present().open_inlet(loop, pair, receiver);
}

}  // namespace ringway::preload
