// Cable: the frames on their way from the transmit queue of a pair to its receive queue, which may be on
// another worker. Memory for all of them is taken at the start. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "ringway/base/mapping.h"
#include "ringway/ring/chain.h"

namespace ringway::loop {
class Loop;
}

namespace ringway::loopback {

// Who takes the frames off the cable: a receive queue, on its worker.
class Receiver {
 public:
  virtual ~Receiver() = default;
  virtual void deliver() = 0;
};

class Cable : public std::enable_shared_from_this<Cable> {
 public:
  // VIRTIO "Setting Up Receive Buffers": the longest frame of a driver with segmentation offloads, and its
  // header.
  static constexpr size_t max_frame = 65562 + 12;  // bytes
  static constexpr size_t capacity = 256;          // frames

  static Result<std::shared_ptr<Cable>> make();

  // Transmitting side. Takes all that the reader holds; drops it if there is no room or it is too long.
  void send(ring::Reader frame);
  // Receiving side, on `worker`'s thread. The receiver is told there when frames have come.
  void plug(Receiver& receiver, loop::Loop& worker);
  void unplug();
  // Receiving side: the oldest frame, which stays on the cable until drop_front(). Empty: there is none.
  [[nodiscard]] std::span<const std::byte> front();
  void drop_front();
  // Drops all frames; what front() gave may be another frame afterwards.
  void clear();

 private:
  explicit Cable(Mapping storage) : storage_(std::move(storage)) {}
  std::byte* slot(uint64_t number) { return storage_.data() + number % capacity * max_frame; }
  void tell();

  Mapping storage_;
  std::array<size_t, capacity> lengths_{};  // bytes
  std::mutex mutex_;                        // guards what follows; slots belong to one side or the other
  uint64_t sent_ = 0;
  uint64_t taken_ = 0;
  Receiver* receiver_ = nullptr;
  loop::Loop* worker_ = nullptr;
  bool told_ = false;  // a task on the worker's way will call deliver()
};

}  // namespace ringway::loopback
