// IotlbMessages: what a device asks of its IOMMU's front-end, waiting to be read from the device's file, and
// the structures of both directions. Any thread. linux/vhost_types.h: vhost_msg, vhost_msg_v2.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>

#include "ringway/kernel/uapi.h"
#include "ringway/vhost/handler.h"

namespace ringway::kernel {

class IotlbMessages final : public vhost::FrontEnd {
 public:
  static constexpr size_t size = sizeof(vhost_msg_v2);  // of either version
  static_assert(sizeof(vhost_msg) == size);

  // Only IotlbFault can be read from such a file; the rest is refused.
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override;

  // Calls `told`, with a lock held, when the first message comes and when the last has gone.
  void on_change(std::function<void(bool waiting)> told);
  [[nodiscard]] bool waiting() const;
  // 0, as the kernel has it, if `to` is too short for a message; EAGAIN if there is none.
  Result<size_t> read(std::span<std::byte> to);
  void set_version(unsigned version);
  void clear();  // also of the version that was agreed on

  // EINVAL for what is not a message; the second version's address space is not looked at.
  static Result<vhost::IotlbMessage> decode(std::span<const std::byte> from);

 private:
  static constexpr size_t max_waiting = 4096;

  mutable std::mutex mutex_;
  std::deque<vhost::IotlbMessage> messages_;
  std::function<void(bool)> told_;
  unsigned version_ = 1;
};

}  // namespace ringway::kernel
