#include "ringway/tools/served_device.h"

namespace ringway::tools {

Parsed<std::unique_ptr<ServedDevice>> ServedDevice::open(const DeviceOptions& options,
                                                         engine::Workers& workers) {
  auto opened = find_device_kind(options.type)->open(options);
  if (!opened) return std::unexpected(opened.error());
  return std::unique_ptr<ServedDevice>(new ServedDevice(options, *std::move(opened), workers));
}

ServedDevice::ServedDevice(DeviceOptions options, OpenedDevice opened, engine::Workers& workers)
    : options_(std::move(options)),
      opened_(std::move(opened)),
      engine_(*opened_.model, workers,
              {.offer_inband_notifications = options_.inband_notifications,
               .offer_postcopy = options_.postcopy}) {
  if (options_.takes_over) engine_.stand_still_from_the_start();
}

Result<> ServedDevice::attach(user::Listener& listener, Service* service) {
  if (!options_.socket_path.empty() && service != nullptr) {
    auto given = TRY(service->listening_at(options_.socket_path));
    if (given) return listener.adopt(*std::move(given), *this, place());
  }
  if (!options_.socket_path.empty()) return listener.listen(options_.socket_path, *this);
  if (!options_.connect.empty()) return listener.connect(options_.connect, *this);
  return listener.adopt(UniqueFd(static_cast<int>(options_.fd)), *this, place());
}

Result<UniqueFd> ServedDevice::hand_over() const {
  if (!opened_.hand_over) return refused("a device of this kind cannot move to another process yet");
  return opened_.hand_over();
}

std::unique_ptr<engine::LocalDevice::Standstill> ServedDevice::stand_still() {
  return std::make_unique<engine::LocalDevice::Standstill>(engine_);
}

Result<std::unique_ptr<ServedDevice::PageSource>> ServedDevice::watch_page_source() {
  auto source = std::make_unique<PageSource>();
  const auto front_end = front_end_.lock();
  if (!front_end) return gone("the front-end left");
  source->connection = TRY(front_end->duplicate());
  source->watch =
      TRY(HangUpWatch::start(source->connection.get(), [this] { engine_.expect_no_more_pages(); }));
  return source;
}

Result<vhost::Device*> ServedDevice::connected() {
  if (options_.postcopy) page_source_ = TRY(watch_page_source());
  contract_.emplace(engine_, vhost::Contract::Limits{.queues = opened_.model->queue_count(),
                                                     .ring_size = opened_.model->max_queue_size()});
  return &*contract_;
}

void ServedDevice::disconnected() {
  page_source_.reset();
  engine_.disconnect();
  contract_.reset();
}

}  // namespace ringway::tools
