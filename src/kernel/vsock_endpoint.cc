// VIRTIO "Socket Device".
#include <linux/vm_sockets.h>

#include <cstring>

#include "ringway/base/endian.h"
#include "ringway/kernel/endpoint.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

class VsockEndpoint final : public Endpoint {
 public:
  explicit VsockEndpoint(uint64_t guest_cid) : guest_cid_(guest_cid) {}

  Result<Shape> open(Ioctls& file, IotlbChannel&) override {
    TRY(set<__u64>(file, VHOST_VSOCK_SET_GUEST_CID, guest_cid_));
    return Shape{.rings = 2, .config_bytes = sizeof guest_cid_, .can_log = false, .starts_together = true};
  }

  // As vhost-scsi: what is received is not marked.
  [[nodiscard]] uint64_t offered(uint64_t features) const override {
    return features & ~vhost::bit(VHOST_F_LOG_ALL);
  }

  // The kernel starts both rings or none.
  [[nodiscard]] RingSet startable(const RingSet& ready) const override {
    return ready[0] && ready[1] ? ready : RingSet{};
  }
  Result<> start(Ioctls& file, const RingSet&) override { return set<int>(file, VHOST_VSOCK_SET_RUNNING, 1); }
  Result<> stop(Ioctls& file, const RingSet&) override { return set<int>(file, VHOST_VSOCK_SET_RUNNING, 0); }

  // All that a driver reads there is its address, which the kernel was told by us.
  Result<std::vector<std::byte>> read_config(Ioctls&, uint32_t offset, uint32_t size) override {
    const le64 cid(guest_cid_);
    const auto all = std::as_bytes(std::span(&cid, 1));
    if (offset > all.size() || size > all.size() - offset)
      return refused("outside the configuration space", offset);
    const auto part = all.subspan(offset, size);
    return std::vector<std::byte>(part.begin(), part.end());
  }

 private:
  const uint64_t guest_cid_;
};

}  // namespace

Result<std::unique_ptr<Endpoint>> vsock_endpoint(uint64_t guest_cid) {
  if (guest_cid <= VMADDR_CID_HOST || guest_cid >= VMADDR_CID_ANY)
    return refused("a guest's CID is 3 to 4294967294", guest_cid);
  return std::make_unique<VsockEndpoint>(guest_cid);
}

}  // namespace ringway::kernel
