// AsVhostNet: in front of a network device: shows of it what Linux's vhost-net has. Offloads are no matter of
// vhost-net's: they are between the program, its guest and the backend, so all of them are agreed on behind
// it. Thread rule: as the device behind it.
#pragma once

#include <memory>
#include <utility>
#include <variant>

#include "ringway/device/port/virtio_net.h"
#include "ringway/vhost/features.h"
#include "ringway/vhost/handler.h"

namespace ringway::preload {

class AsVhostNet final : public vhost::Device {
 public:
  explicit AsVhostNet(std::unique_ptr<vhost::Device> next) : next_(std::move(next)) {}

  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override {
    if (std::holds_alternative<vhost::GetFeatures>(request)) return TRY(offered()) & shown;
    if (auto* set = std::get_if<vhost::SetFeatures>(&request)) set->features |= TRY(offered()) & offloads;
    return next_->handle(std::move(request));
  }

 private:
  static constexpr uint64_t offloads = port::transmit_offloads | port::receive_offloads;
  // Bits 24 to 41 are those of all devices. VIRTIO "Feature Bits".
  static constexpr uint64_t shown =
      vhost::bit(port::VIRTIO_NET_F_MRG_RXBUF) | ((uint64_t{1} << 42U) - (uint64_t{1} << 24U));

  Result<uint64_t> offered() { return vhost::call(*next_, vhost::GetFeatures{}); }
  const std::unique_ptr<vhost::Device> next_;
};

}  // namespace ringway::preload
