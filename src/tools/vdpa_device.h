// VdpaDevice: a device that files of vhost-vdpa are opened on, one after the other: whoever has one open has
// the device alone, and what it is stays when the file is closed. Any thread.
#pragma once

#include <atomic>
#include <memory>

#include "ringway/engine/model.h"
#include "ringway/engine/workers.h"
#include "ringway/kernel/ioctl_server.h"

namespace ringway::tools {

class VdpaDevice {
 public:
  // `workers` outlive the device, and it outlives what open() returns.
  VdpaDevice(std::unique_ptr<engine::Model> model, engine::Workers& workers)
      : model_(std::move(model)), workers_(workers) {}

  // EBUSY while somebody has it.
  Result<kernel::IoctlServer::Served> open();

 private:
  class Lease;
  const std::unique_ptr<engine::Model> model_;
  engine::Workers& workers_;
  std::atomic<bool> taken_ = false;
};

}  // namespace ringway::tools
