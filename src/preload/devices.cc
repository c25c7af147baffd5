#include "ringway/preload/devices.h"

#include <memory>
#include <utility>

#include "ringway/device/loopback/loopback.h"
#include "ringway/device/net/net.h"
#include "ringway/engine/local_device.h"
#include "ringway/preload/as_vhost_net.h"
#include "ringway/preload/backend_port.h"
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

// A network device over what its rings are given.
Result<kernel::IoctlServer::Served> make_tap_device(engine::Workers& workers) {
  auto port = std::make_unique<BackendPort>();
  BackendPort& backends = *port;
  auto model = std::make_unique<net::Net>(std::move(port), net::Net::Options{.pairs = 1});
  return kernel::IoctlServer::Served{
      .device = std::make_unique<AsVhostNet>(std::make_unique<WholeDevice>(std::move(model), workers)),
      .set_backend = [&backends](uint32_t ring, UniqueFd fd) { return backends.bind(ring, std::move(fd)); }};
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
