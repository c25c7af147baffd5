// Loopback: network devices (VIRTIO "Network Device") whose cable is plugged into itself: what a driver
// transmits, the same pair of queues receives, in order, with its header. Frames for which the receiver has
// no room are dropped, as on any network. Thread rule: as engine::Model; the queues belong to workers.
#pragma once

#include <memory>
#include <vector>

#include "ringway/device/loopback/cable.h"
#include "ringway/engine/model.h"

namespace ringway::loopback {

class Loopback final : public engine::Model {
 public:
  // 1 to 128 pairs of queues: receive, transmit, receive, ... There is no control queue.
  static Result<std::unique_ptr<Loopback>> open(uint16_t pairs);

  [[nodiscard]] uint32_t device_id() const override;
  [[nodiscard]] uint64_t features() const override;
  void set_features(uint64_t features) override;
  void reset() override;
  [[nodiscard]] uint16_t queue_count() const override { return static_cast<uint16_t>(2 * cables_.size()); }
  [[nodiscard]] bool uses_in_order() const override { return true; }
  std::unique_ptr<engine::Queue> start_queue(engine::QueueLoop& loop) override;

 private:
  explicit Loopback(std::vector<std::shared_ptr<Cable>> cables) : cables_(std::move(cables)) {}
  const std::vector<std::shared_ptr<Cable>> cables_;  // one for each pair
  uint64_t features_ = 0;                             // agreed
};

}  // namespace ringway::loopback
