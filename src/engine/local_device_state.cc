// LocalDevice: state that moves to another back-end. vhost-user "Migrating back-end state".
#include "ringway/engine/device_state.h"
#include "ringway/engine/local_device.h"

namespace ringway::engine {

// What is saved is the state of this moment: the device is suspended. Nothing is lost by it, so that the
// source can go on.
Result<vhost::StateChannel> LocalDevice::on(vhost::SetDeviceStateFd& request) {
  if (running_ > 0) return refused("device state moves only while all rings are stopped");
  if (transfer_ && transfer_->running()) return refused("device state is being transferred already");
  constexpr uint32_t save = 0;
  if (request.direction == save) {
    const std::vector<std::byte> model = model_.save_state();
    if (model.size() > max_model_state) return refused("the device has too much state", model.size());
    transfer_ = TRY(StateTransfer::save(std::move(request.fd), wrap_state(model_.device_id(), model)));
  } else {
    transfer_ = TRY(StateTransfer::load(std::move(request.fd), max_state));
  }
  return vhost::StateChannel{};
}

Result<uint64_t> LocalDevice::on(const vhost::CheckDeviceState&) {
  if (!transfer_) return refused("no device state was transferred");
  const auto transfer = std::move(transfer_);
  const std::vector<std::byte> state = TRY(transfer->finish(options_.state_patience));
  if (!transfer->is_load()) return 0;
  if (running_ > 0) return refused("device state came too late: rings run");
  TRY(model_.load_state(TRY(unwrap_state(model_.device_id(), state))));
  return 0;
}

Result<> LocalDevice::take_state(std::span<const std::byte> state) {
  const std::scoped_lock lock(mutex_);
  if (running_ > 0) return refused("device state came too late: rings run");
  TRY(model_.load_state(TRY(unwrap_state(model_.device_id(), state))));
  return {};
}

}  // namespace ringway::engine
