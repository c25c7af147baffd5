// Endpoint: what is particular to one family of vhost files: what stands behind the rings (a tap, a SCSI
// target, a CID, a vDPA device), how they are started and stopped, what they know of memory, configuration
// and status. One implementation per family. Control thread, inside KernelDevice.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringway/kernel/ioctls.h"
#include "ringway/kernel/iotlb_channel.h"
#include "ringway/memory/map.h"

namespace ringway::kernel {

inline constexpr uint32_t max_rings = 256;
using RingSet = std::bitset<max_rings>;

struct Shape {
  uint32_t rings = 0;
  uint32_t ring_size = 32768;  // entries, at most
  uint32_t config_bytes = 0;   // 0: no configuration space
  bool has_status = false;
  bool can_log = true;
  bool starts_together = false;         // all rings at once: another one is a stop and a start of all
  bool rings_by_guest_address = false;  // addresses of rings are told as guest addresses, not as pointers
  RingSet discarding;  // these run while they are disabled, and what they carry has no effect then
};

class Endpoint {
 public:
  virtual ~Endpoint() = default;

  // The file has just been opened and is owned. What it can do.
  virtual Result<Shape> open(Ioctls& file, IotlbChannel& iotlb) = 0;

  // Of what the kernel offers, what front-ends are offered; and back.
  [[nodiscard]] virtual uint64_t offered(uint64_t features) const { return features; }
  virtual Result<> set_features(Ioctls& file, uint64_t features);
  // Replaces the memory table. Whatever is in `now` stays mapped while the kernel knows it.
  virtual Result<> set_memory(Ioctls& file, const memory::Map& now);

  // Of the rings that are ready, those that can run.
  [[nodiscard]] virtual RingSet startable(const RingSet& ready) const { return ready; }
  // Called before rings are configured and started, and after those before them have stopped.
  virtual Result<> prepare(Ioctls&, uint64_t /*features*/) { return {}; }
  // Rings that run may be started again: of Shape::discarding, those that discarded.
  virtual Result<> start(Ioctls& file, const RingSet& rings) = 0;
  // Of Shape::discarding: they start, or go on, without effects.
  virtual Result<> discard(Ioctls&, const RingSet& /*rings*/) { return {}; }
  virtual Result<> stop(Ioctls& file, const RingSet& rings) = 0;

  // Refused by families that have no such thing.
  virtual Result<std::vector<std::byte>> read_config(Ioctls& file, uint32_t offset, uint32_t size);
  virtual Result<> write_config(Ioctls& file, uint32_t offset, std::span<const std::byte> bytes);
  virtual Result<uint64_t> status(Ioctls& file);
  // An eventfd that the kernel signals when the configuration has changed.
  virtual Result<> set_config_call(Ioctls& file, int fd);
  // To its initial state; no ring runs.
  virtual Result<> reset(Ioctls&) { return {}; }
};

// vhost-net: one pair of rings, 0 receives, 1 transmits. `backend` is a tap, a macvtap or a packet socket.
Result<std::unique_ptr<Endpoint>> net_endpoint(UniqueFd backend);
// A tap of that name, made if there is none.
Result<UniqueFd> open_tap(const std::string& name);

// vhost-scsi: the target of an LIO fabric "vhost" by its name ("naa.5001405..."). Rings: control, event, then
// `queues` request rings.
Result<std::unique_ptr<Endpoint>> scsi_endpoint(const std::string& wwpn, uint32_t queues);

// vhost-vsock: the guest's address, 3 or more. Rings: 0 receives, 1 transmits.
Result<std::unique_ptr<Endpoint>> vsock_endpoint(uint64_t guest_cid);

// vhost-vdpa: whatever device that is.
std::unique_ptr<Endpoint> vdpa_endpoint();

}  // namespace ringway::kernel
