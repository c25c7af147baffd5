// IotlbChannel: the kernel's device IOTLB, filled by writing messages to the vhost file and asked for by
// reading them, in either version. Control thread; take() may be called by another. linux/vhost_types.h:
// vhost_msg, vhost_msg_v2.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ringway/kernel/ioctls.h"
#include "ringway/memory/map.h"
#include "ringway/vhost/request.h"

namespace ringway::kernel {

class IotlbChannel {
 public:
  explicit IotlbChannel(Ioctls& file) : file_(file) {}

  // Agrees on back-end features: version 2 of the messages and what else is wanted, where the kernel has it.
  Result<> negotiate(uint64_t wanted);
  [[nodiscard]] bool has(unsigned backend_feature) const { return (agreed_ >> backend_feature & 1) != 0; }

  // What lies at `iova` from now on: `size` bytes of our own memory.
  Result<> update(uint64_t iova, uint64_t size, const std::byte* at, uint8_t permission);
  // The same by front-end addresses, which may lie in several regions.
  Result<> update(const memory::Map& map, const memory::IotlbEntry& entry);
  Result<> invalidate(uint64_t iova, uint64_t size);
  // The next miss, if there is one.
  Result<std::optional<vhost::IotlbMessage>> take();

 private:
  Result<> send(const vhost_iotlb_msg& message);
  Ioctls& file_;
  uint64_t agreed_ = 0;  // bits VHOST_BACKEND_F_*
};

}  // namespace ringway::kernel
