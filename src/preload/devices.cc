#include "ringway/preload/devices.h"

#include <memory>
#include <utility>

#include "ringway/device/loopback/loopback.h"
#include "ringway/engine/local_device.h"
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

}  // namespace

bool is_device_name(std::string_view name) { return name == "loopback"; }

Result<kernel::IoctlServer::Served> make_device(std::string_view name, engine::Workers& workers) {
  if (!is_device_name(name)) return refused("there is no such device");
  return kernel::IoctlServer::Served{
      .device = std::make_unique<WholeDevice>(TRY(loopback::Loopback::open(1)), workers)};
}

}  // namespace ringway::preload
