#include "ringway/preload/devices.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <utility>
#include <variant>

#include "ringway/device/loopback/loopback.h"
#include "ringway/device/net/net.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/engine/local_device.h"
#include "ringway/preload/late_tap.h"
#include "ringway/vhost/contract.h"

namespace ringway::preload {
namespace {

// Model, engine and contract in one.
class WholeDevice final : public vhost::Device {
 public:
  WholeDevice(std::unique_ptr<engine::Model> model, engine::Workers& workers)
      : model_(std::move(model)),
        engine_(*model_, workers),
        contract_(engine_, {.queues = model_->queue_count(), .ring_size = model_->max_queue_size()}) {}

  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override {
    return contract_.handle(std::move(request));
  }

 private:
  const std::unique_ptr<engine::Model> model_;
  engine::LocalDevice engine_;
  vhost::Contract contract_;
};

// In front of a network device: shows of it what vhost-net has. Offloads are no matter of vhost-net's: they
// are between the program, its guest and the tap, so all of them are agreed on behind it.
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

// A network device over the tap that its rings are given: one for both, that of the first.
Result<kernel::IoctlServer::Served> make_tap_device(engine::Workers& workers) {
  auto port = std::make_unique<LateTap>();
  LateTap& tap = *port;
  auto model = std::make_unique<net::Net>(std::move(port), net::Net::Options{.pairs = 1});
  return kernel::IoctlServer::Served{
      .device = std::make_unique<AsVhostNet>(std::make_unique<WholeDevice>(std::move(model), workers)),
      .set_backend = [&tap, bound = std::array<bool, 2>{}](uint32_t ring, UniqueFd fd) mutable -> Result<> {
        bound.at(ring) = static_cast<bool>(fd);
        if (fd && !tap.has_tap()) {
          auto taken = tap.take(std::move(fd));
          bound.at(ring) = taken.has_value();
          return taken;
        }
        if (std::ranges::none_of(bound, std::identity())) tap.give_back();
        return {};
      }};
}

}  // namespace

bool is_device_name(std::string_view name) { return name == "loopback" || name == "tap"; }

Result<kernel::IoctlServer::Served> make_device(std::string_view name, engine::Workers& workers) {
  if (!is_device_name(name)) return refused("there is no such device");
  if (name == "tap") return make_tap_device(workers);
  return kernel::IoctlServer::Served{
      .device = std::make_unique<WholeDevice>(TRY(loopback::Loopback::open(1)), workers)};
}

}  // namespace ringway::preload
