// Session: what a front-end wants, in about ten calls, over any Device: agree, share memory, run queues, read
// the configuration space. One call at a time, from any thread. vhost-user "Communication", "Ring states".
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost {

// Memory that the device may use. The file descriptor stays the caller's.
struct SharedRegion {
  memory::RegionLayout layout;
  int fd = -1;
};

struct QueueSetup {
  RingIndex ring = 0;
  uint32_t size = 0;    // entries
  uint32_t base = 0;    // where to begin: 0, for packed rings 0x80008000, or what stop_queue() gave
  uint64_t desc = 0;    // user addresses of the three areas; I/O virtual with ACCESS_PLATFORM
  uint64_t driver = 0;  // avail ring, or driver event suppression
  uint64_t device = 0;  // used ring, or device event suppression
  std::optional<uint64_t> log = std::nullopt;  // guest-physical, of `device`: writes to it are logged there
  UniqueFd kick;                               // none: the device polls
  UniqueFd call;                               // none: no notifications
  UniqueFd err;                                // none: no errors are told
};

// What a device may tell. Called on the thread of the back-end channel, which must not wait for a call of
// Session.
struct DeviceEvents {
  std::function<void()> config_changed;
  std::function<void(const IotlbMessage&)> iotlb_fault;  // a miss, or an access that is not permitted
};

class Session {
 public:
  static constexpr uint32_t min_memory_slots = 8;  // of every back-end

  explicit Session(Device& device) : device_(device) {}

  // Agrees on what is both wanted and offered, and says what that is. First of all calls; again after
  // reset().
  Result<Agreement> negotiate(const Agreement& wanted);
  [[nodiscard]] const Agreement& agreed() const { return agreed_; }
  // Before memory and queues, if the device shall be able to tell.
  Result<> listen(DeviceEvents events);

  // 1 from a back-end that does not tell. What a back-end says is bounded by 256.
  Result<uint32_t> queue_count();
  // 8 without CONFIGURE_MEM_SLOTS; bounded by 65536.
  Result<uint32_t> max_memory_slots();

  // Replaces the device's memory by these regions, one by one if slots were agreed upon. When it returns,
  // what is no longer among them is not used any more.
  Result<> map_memory(std::span<const SharedRegion> regions);
  Result<> map_iotlb(const IotlbMessage& entry);
  Result<> unmap_iotlb(GuestAddress iova, uint64_t size);

  // An in-flight area for so many queues, to be given to use_inflight() before they start: now, and again to
  // whoever serves them when this back-end is gone. What the device gives is checked. INFLIGHT_SHMFD must
  // have been agreed upon.
  Result<InflightArea> new_inflight(uint16_t queues, uint16_t queue_size);
  // The area stays the caller's.
  Result<> use_inflight(const InflightArea& area);

  // From here on the device marks in `log` what it writes, one bit for each page of 4 KiB. LOG_ALL and
  // LOG_SHMFD must have been agreed upon. After map_memory(): `bytes` must cover it.
  Result<> log_writes(UniqueFd log, uint64_t bytes);
  Result<> start_queue(QueueSetup setup);
  // Returns when all requests of the queue are complete, with the base for the next start.
  Result<uint32_t> stop_queue(RingIndex ring);

  Result<std::vector<std::byte>> read_config(uint32_t offset, uint32_t size);
  Result<> write_config(uint32_t offset, std::span<const std::byte> bytes);

  // Of a network device whose driver will hear of it. Refused if VIRTIO_NET_F_MTU and the capability MTU have
  // not been agreed upon, or by the device if the MTU cannot be.
  Result<> set_mtu(uint16_t mtu);

  Result<uint8_t> status();
  Result<> set_status(uint8_t status);
  // By RESET_DEVICE or the status, whichever there is; refused if there is neither.
  Result<> reset();

 private:
  Result<> set_table(std::span<const SharedRegion> regions);
  Result<> change_slots(std::span<const SharedRegion> regions);
  Result<> barrier();

  Device& device_;
  Agreement agreed_;
  std::vector<memory::RegionLayout> slots_;  // in the device now
};

}  // namespace ringway::vhost
