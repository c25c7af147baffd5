// ServedDevice: one device as it is served: model, engine, contract, and the sessions of its front-ends.
// Thread rule: made and ended by the main thread; sessions call it from their own.
#pragma once

#include <memory>
#include <optional>

#include "ringway/device/blk/blk.h"
#include "ringway/engine/local_device.h"
#include "ringway/engine/standstill.h"
#include "ringway/engine/workers.h"
#include "ringway/tools/device_options.h"
#include "ringway/user/listener.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

class ServedDevice final : public user::SessionOwner {
 public:
  static Result<std::unique_ptr<ServedDevice>> open(const DeviceOptions& options, engine::Workers& workers);

  // Makes it reachable where its options say. The listener must have stopped before the device ends.
  Result<> attach(user::Listener& listener);
  // Live upgrade. Where it is served, as Listener calls it, and what it is.
  [[nodiscard]] std::string place() const;
  [[nodiscard]] const std::string& type() const { return options_.type; }
  // What another process needs to open it; may be none.
  [[nodiscard]] Result<UniqueFd> hand_over() const { return blk_->hand_over(); }
  [[nodiscard]] std::unique_ptr<engine::LocalDevice::Standstill> stand_still();
  void go_on() { engine_.go_on(); }  // one that was opened to take over
  // Looks at what it serves again: a file may have grown.
  Result<> refresh() { return blk_->refresh(); }

  Result<vhost::Device*> connected() override;
  void disconnected() override;

 private:
  ServedDevice(DeviceOptions options, std::unique_ptr<blk::Blk> blk, engine::Workers& workers);

  const DeviceOptions options_;
  const std::unique_ptr<blk::Blk> blk_;
  engine::LocalDevice engine_;
  std::optional<vhost::Contract> contract_;  // of the present session
};

}  // namespace ringway::tools
