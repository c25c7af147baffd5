#include <cstring>

#include "ringway/kernel/endpoint.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

constexpr uint32_t fixed_rings = 2;  // control, event

class ScsiEndpoint final : public Endpoint {
 public:
  ScsiEndpoint(const std::string& wwpn, uint32_t queues) : queues_(queues) {
    target_.abi_version = VHOST_SCSI_ABI_VERSION;
    std::memcpy(target_.vhost_wwpn, wwpn.data(), wwpn.size());
  }

  Result<Shape> open(Ioctls& file, IotlbChannel&) override {
    const int version = TRY(get<int>(file, VHOST_SCSI_GET_ABI_VERSION));
    if (version != VHOST_SCSI_ABI_VERSION) {
      return refused("vhost-scsi has another ABI version", static_cast<uint64_t>(version));
    }
    TRY(look_for_target(file));
    return Shape{.rings = fixed_rings + queues_, .can_log = false, .starts_together = true};
  }

  // Linux takes LOG_ALL here and marks the used ring only, not what its answers are written to (seen in 6.1).
  [[nodiscard]] uint64_t offered(uint64_t features) const override {
    return features & ~vhost::bit(VHOST_F_LOG_ALL);
  }

  // The kernel makes commands for the rings that are set up now: all of them start together.
  Result<> start(Ioctls& file, const RingSet&) override {
    return set(file, VHOST_SCSI_SET_ENDPOINT, target_);
  }
  Result<> stop(Ioctls& file, const RingSet&) override {
    return set(file, VHOST_SCSI_CLEAR_ENDPOINT, target_);
  }

 private:
  // Whether it can be had is only known by taking it, for which the kernel wants a memory table.
  Result<> look_for_target(Ioctls& file) {
    TRY(set_memory(file, *memory::Map::empty()));
    const auto taken = set(file, VHOST_SCSI_SET_ENDPOINT, target_);
    const int error = taken ? 0 : taken.error().os_error;
    if (error == ENODEV || error == EEXIST)
      return refused("there is no such target in the kernel's vhost fabric, or another has it");
    TRY(taken);
    return set(file, VHOST_SCSI_CLEAR_ENDPOINT, target_);
  }

  vhost_scsi_target target_{};
  const uint32_t queues_;
};

}  // namespace

Result<std::unique_ptr<Endpoint>> scsi_endpoint(const std::string& wwpn, uint32_t queues) {
  if (wwpn.empty() || wwpn.size() >= sizeof vhost_scsi_target{}.vhost_wwpn)
    return refused("a target's name has 1 to 223 characters");
  if (queues == 0 || queues > max_rings - fixed_rings) return refused("1 to 254 request queues", queues);
  return std::make_unique<ScsiEndpoint>(wwpn, queues);
}

}  // namespace ringway::kernel
