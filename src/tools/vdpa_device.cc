#include "ringway/tools/vdpa_device.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "ringway/engine/local_device.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

// Engine and contract of one open file.
class VdpaDevice::Lease final : public vhost::Device {
 public:
  explicit Lease(VdpaDevice& device) : device_(device) {
    engine::Model& model = *device.model_;
    engine_ = std::make_unique<engine::LocalDevice>(model, device.workers_);
    contract_ = std::make_unique<vhost::Contract>(
        *engine_,
        vhost::Contract::Limits{.queues = model.queue_count(), .ring_size = model.max_queue_size()});
  }
  // The next may come when nothing of this one is left.
  ~Lease() override {
    contract_.reset();
    engine_.reset();
    device_.taken_ = false;
  }
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override {
    return contract_->handle(std::move(request));
  }

 private:
  VdpaDevice& device_;
  std::unique_ptr<engine::LocalDevice> engine_;
  std::unique_ptr<vhost::Contract> contract_;
};

Result<kernel::IoctlServer::Served> VdpaDevice::open() {
  if (taken_.exchange(true)) return os_failure("the device is open already", EBUSY);
  return kernel::IoctlServer::Served{
      .device = std::make_unique<Lease>(*this),
      .identity = {.device_id = model_->device_id(),
                   .ring_size = static_cast<uint16_t>(std::min<uint32_t>(model_->max_queue_size(), 0x8000)),
                   .config_bytes = model_->config_size()}};
}

}  // namespace ringway::tools
