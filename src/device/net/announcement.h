// Announcement: the frame that tells switches on the way where a station is now, on behalf of a driver that
// does not do so itself. vhost-user "SEND_RARP", RFC 903. It outlives the queue that sends it.
#pragma once

#include <array>
#include <atomic>

#include "ringway/device/net/config.h"
#include "ringway/device/port/frame.h"

namespace ringway::net {

class Announcement : public port::Frame {
 public:
  Announcement();
  // False: the last is still on its way. Otherwise it is taken until free().
  bool fill(const Mac& mac);
  void free() { taken_.store(false, std::memory_order_release); }

 private:
  static constexpr size_t bytes = 60;  // the shortest frame of Ethernet
  std::array<std::byte, bytes> frame_{};
  iovec piece_{.iov_base = frame_.data(), .iov_len = frame_.size()};
  std::atomic<bool> taken_ = false;
};

}  // namespace ringway::net
