// Standstill: while it lives, no queue of a device takes anything new, and nobody but its owner changes the
// device: the moment at which it can move to another process. Its end lets the queues go on as if nothing had
// been. Control thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "ringway/engine/local_device.h"

namespace ringway::engine {

class LocalDevice::Standstill {
 public:
  // The front-end translates addresses (VIRTIO_F_ACCESS_PLATFORM). It answers questions by requests, so one
  // that is not listened to answers none, and a standstill may not be reached.
  [[nodiscard]] static bool is_translated_for(const LocalDevice& device);

  // Returns at once; what is in flight ends by and by. No request is under way at `device`, which outlives
  // it.
  explicit Standstill(LocalDevice& device);
  ~Standstill();
  Standstill(const Standstill&) = delete;
  Standstill& operator=(const Standstill&) = delete;

  // True: nothing is in flight, and nothing is left to be said to the front-end. False: not by `deadline`.
  bool reached(std::chrono::steady_clock::time_point deadline);
  // Where each ring stands, once the standstill is reached.
  [[nodiscard]] std::vector<vhost::RingState> bases() const;
  // What the driver has set, for LocalDevice::take_state(); once the standstill is reached.
  [[nodiscard]] std::vector<std::byte> state() const;

 private:
  LocalDevice& device_;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace ringway::engine
