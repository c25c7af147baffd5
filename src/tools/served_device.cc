#include "ringway/tools/served_device.h"

#include "ringway/device/backing/file.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/backing/null.h"

namespace ringway::tools {
namespace {

Result<std::unique_ptr<backing::Backing>> open_backing(const DeviceOptions& options) {
  if (options.memory > 0) return backing::open_memory(options.memory, options.read_only);
  if (options.null > 0) return backing::open_null(options.null, options.read_only);
  return backing::open_file(
      options.blk_file, {.read_only = options.read_only, .direct = options.direct, .lanes = options.queues});
}

// Without one of its own a disk is known by the name of its file.
std::string serial_of(const DeviceOptions& options) {
  if (!options.serial.empty()) return options.serial;
  const std::string name = options.blk_file.substr(options.blk_file.rfind('/') + 1);
  return name.empty() ? "ringway" : name.substr(0, 20);
}

}  // namespace

Result<std::unique_ptr<ServedDevice>> ServedDevice::open(const DeviceOptions& options,
                                                         engine::Workers& workers) {
  auto blk = std::make_unique<blk::Blk>(
      TRY(open_backing(options)),
      blk::Blk::Options{.queues = static_cast<uint16_t>(options.queues), .serial = serial_of(options)});
  return std::unique_ptr<ServedDevice>(new ServedDevice(options, std::move(blk), workers));
}

ServedDevice::ServedDevice(DeviceOptions options, std::unique_ptr<blk::Blk> blk, engine::Workers& workers)
    : options_(std::move(options)),
      blk_(std::move(blk)),
      engine_(*blk_, workers, {.offer_inband_notifications = options_.inband_notifications}) {}

Result<> ServedDevice::attach(user::Listener& listener) {
  if (!options_.socket_path.empty()) return listener.listen(options_.socket_path, *this);
  if (!options_.connect.empty()) return listener.connect(options_.connect, *this);
  return listener.adopt(UniqueFd(static_cast<int>(options_.fd)), *this);
}

Result<vhost::Device*> ServedDevice::connected() {
  contract_.emplace(
      engine_, vhost::Contract::Limits{.queues = blk_->queue_count(), .ring_size = blk_->max_queue_size()});
  return &*contract_;
}

void ServedDevice::disconnected() {
  engine_.disconnect();
  contract_.reset();
}

}  // namespace ringway::tools
