#include "ringway/engine/standstill.h"

#include <linux/virtio_config.h>

#include <algorithm>

#include "ringway/engine/device_state.h"

namespace ringway::engine {

bool LocalDevice::Standstill::is_translated_for(const LocalDevice& device) {
  return device.has(VIRTIO_F_ACCESS_PLATFORM);
}

LocalDevice::Standstill::Standstill(LocalDevice& device) : device_(device), lock_(device.mutex_) {
  for (Vring& vring : device_.vrings_) {
    for (RunningQueue* queue : queues_of(vring)) {
      if (queue != nullptr) queue->stand_still();
    }
  }
  device_.wait_for_no_kicks();  // another process is to see them
}

LocalDevice::Standstill::~Standstill() {
  lock_.unlock();
  device_.go_on();
}

bool LocalDevice::Standstill::reached(std::chrono::steady_clock::time_point deadline) {
  const bool still = std::ranges::all_of(device_.vrings_, [&](Vring& vring) {
    return std::ranges::all_of(queues_of(vring), [&](RunningQueue* queue) {
      return queue == nullptr || queue->stands_still(deadline);
    });
  });
  return still && device_.front_end_.wait_until_said(deadline);
}

// A queue that was stopped without waiting is not the front-end's any more, but may still write.
std::array<RunningQueue*, 2> LocalDevice::queues_of(const Vring& vring) {
  return {vring.queue.get(), vring.suspended.get()};
}

std::vector<std::byte> LocalDevice::Standstill::state() const {
  const std::vector<std::byte> model = device_.model_.save_state();
  return wrap_state(device_.model_.device_id(), model);
}

std::vector<vhost::RingState> LocalDevice::Standstill::bases() const {
  std::vector<vhost::RingState> bases;
  const bool packed = ring::Format::of(device_.features_, false).packed;
  for (size_t i = 0; i < device_.vrings_.size(); ++i) {
    const Vring& vring = device_.vrings_[i];
    const uint32_t base = vring.queue ? vring.queue->base().to_wire(packed) : vring.base;
    bases.push_back({.ring = static_cast<uint32_t>(i), .value = base});
  }
  return bases;
}

}  // namespace ringway::engine
