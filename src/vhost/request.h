// Requests of vhost as values: what a front-end asks of a device, and what a device asks of its front-end.
// vhost-user "Front-end message types", "Back-end message types"; the kernel's ioctls are the same requests.
// Values own what they carry (fds). Semantics are vhost-user's; the leaves translate.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <variant>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/memory/iotlb.h"
#include "ringway/memory/map.h"

namespace ringway::vhost {

using memory::FrontEndAddress;
using memory::GuestAddress;

// ---- Handler: whoever answers requests
// -------------------------------------------------------------------------------

template <class Request>
class Handler;

// ---- replies and parts
// -----------------------------------------------------------------------------------------------

struct Done {};

using RingIndex = uint32_t;  // as received: unchecked until vhost::Contract has seen it

struct RingState {
  RingIndex ring = 0;
  uint32_t value = 0;
};

// Protocol features of the device itself, VHOST_USER_PROTOCOL_F_* bits. Those of the socket are the socket's
// business.
struct Capabilities {
  uint64_t bits = 0;
  bool operator==(const Capabilities&) const = default;
};

struct ConfigBytes {
  uint32_t offset = 0;
  uint32_t flags = 0;
  std::vector<std::byte> bytes;  // empty in a reply: the device refuses
};

struct InflightArea {
  uint64_t size = 0;    // bytes
  uint64_t offset = 0;  // bytes into the file
  uint16_t queues = 0;
  uint16_t queue_size = 0;
  UniqueFd fd;
};

struct StateChannel {  // reply to SetDeviceStateFd
  uint8_t error = 0;   // 0: success
  UniqueFd fd;         // none: use the one that was sent
};

struct SharedObject {
  UniqueFd fd;  // none: no such object
};

struct ShmemConfig {
  uint32_t regions = 0;
  std::array<uint64_t, 256> sizes{};  // bytes, by shmid; 0: unused
};

struct CryptoSession {
  // The wire structure as the compilers of LP64 little-endian hosts lay it out; decoded by the crypto device.
  std::vector<std::byte> bytes;
};

struct MemoryRegion {
  // Memory of this very process, at the front-end address: for a front-end that lives in it. It has no fd, so
  // that no socket can carry it, and none can ask for it.
  enum class Origin : uint8_t { file, own_process };

  memory::RegionLayout layout;
  UniqueFd fd;
  Origin origin = Origin::file;
};

// Reply in postcopy: the regions as they were sent, with the back-end's own addresses for the front-end's.
struct MemoryTable {
  std::vector<memory::RegionLayout> regions;
};

using Uuid = std::array<std::byte, 16>;

enum class IotlbType : uint8_t { miss = 1, update = 2, invalidate = 3, access_fail = 4 };

struct IotlbMessage {
  GuestAddress iova;
  uint64_t size = 0;
  FrontEndAddress front_end;
  uint8_t permission = 0;  // bits of memory::Access
  IotlbType type = IotlbType::update;
};

struct ShmemRange {
  uint8_t shmid = 0;
  uint64_t fd_offset = 0;
  uint64_t shm_offset = 0;
  uint64_t length = 0;
  uint64_t flags = 0;  // bit 0: writable
};

// clang-format off: a request to a line where it fits

// ---- what a device asks of its front-end -----------------------------------------------------------------------------

struct IotlbFault { IotlbMessage message; using Reply = Done; };  // miss or access_fail
struct ConfigChange { using Reply = Done; };
struct HostNotifier { RingIndex ring = 0; uint64_t size = 0; uint64_t offset = 0; UniqueFd fd; using Reply = Done; };
struct VringCall { RingIndex ring = 0; using Reply = Done; };
struct VringErr { RingIndex ring = 0; using Reply = Done; };
struct SharedObjectAdd { Uuid uuid{}; using Reply = Done; };
struct SharedObjectRemove { Uuid uuid{}; using Reply = Done; };
struct SharedObjectLookup { Uuid uuid{}; using Reply = SharedObject; };
struct ShmemMap { ShmemRange range; UniqueFd fd; using Reply = Done; };
struct ShmemUnmap { ShmemRange range; using Reply = Done; };

using FrontEndRequest = std::variant<IotlbFault, ConfigChange, HostNotifier, VringCall, VringErr, SharedObjectAdd,
                                     SharedObjectRemove, SharedObjectLookup, ShmemMap, ShmemUnmap>;
using FrontEnd = Handler<FrontEndRequest>;

// ---- what a front-end asks of a device -------------------------------------------------------------------------------

struct GetFeatures { using Reply = uint64_t; };  // without VHOST_USER_F_PROTOCOL_FEATURES, which is the socket's
struct SetFeatures { uint64_t features = 0; using Reply = Done; };  // with bit 30 as the front-end sent it
struct SetOwner { using Reply = Done; };
struct ResetOwner { using Reply = Done; };
struct SetMemTable { std::vector<MemoryRegion> regions; using Reply = Done; };
struct SetLogBase {
  uint64_t size = 0;
  uint64_t offset = 0;
  UniqueFd fd;
  MemoryRegion::Origin origin = MemoryRegion::Origin::file;
  FrontEndAddress front_end;  // own_process: where it is, without an fd
  using Reply = Done;
};
struct SetLogFd { UniqueFd fd; using Reply = Done; };  // no fd: nobody is told
struct SetVringNum { RingIndex ring = 0; uint32_t size = 0; using Reply = Done; };
struct SetVringAddr {
  RingIndex ring = 0;
  uint32_t flags = 0;  // VHOST_VRING_F_LOG
  // User addresses; I/O virtual with VIRTIO_F_ACCESS_PLATFORM, guest-physical with GPA_ADDRESSES.
  uint64_t desc = 0;
  uint64_t used = 0;
  uint64_t avail = 0;
  uint64_t log = 0;  // guest-physical
  using Reply = Done;
};
struct SetVringBase { RingIndex ring = 0; uint32_t base = 0; using Reply = Done; };
struct GetVringBase { RingIndex ring = 0; using Reply = RingState; };  // stops the ring and drains it
struct SetVringKick { RingIndex ring = 0; UniqueFd fd; using Reply = Done; };  // no fd: poll
struct SetVringCall { RingIndex ring = 0; UniqueFd fd; using Reply = Done; };
struct SetVringErr { RingIndex ring = 0; UniqueFd fd; using Reply = Done; };
struct GetProtocolFeatures { using Reply = Capabilities; };
struct SetProtocolFeatures { Capabilities capabilities; using Reply = Done; };
struct GetQueueNum { using Reply = uint64_t; };
struct SetVringEnable { RingIndex ring = 0; uint32_t enable = 0; using Reply = Done; };
struct SendRarp { uint64_t mac = 0; using Reply = Done; };
struct NetSetMtu { uint64_t mtu = 0; using Reply = Done; };
struct SetFrontEnd { std::shared_ptr<FrontEnd> front_end; using Reply = Done; };  // SET_BACKEND_REQ_FD
struct UpdateIotlb { IotlbMessage message; using Reply = Done; };                  // update or invalidate
struct SetVringEndian { RingIndex ring = 0; uint32_t big = 0; using Reply = Done; };
struct GetConfig { uint32_t offset = 0; uint32_t size = 0; uint32_t flags = 0; using Reply = ConfigBytes; };
struct SetConfig { ConfigBytes config; using Reply = Done; };  // flags: VHOST_SET_CONFIG_TYPE_*
struct CreateCryptoSession { CryptoSession session; using Reply = CryptoSession; };
struct CloseCryptoSession { uint64_t session = 0; using Reply = Done; };
struct PostcopyAdvise { using Reply = UniqueFd; };
struct PostcopyListen { using Reply = Done; };
struct PostcopyEnd { using Reply = Done; };
struct GetInflightFd { uint16_t queues = 0; uint16_t queue_size = 0; using Reply = InflightArea; };
struct SetInflightFd { InflightArea area; using Reply = Done; };
struct GpuSetSocket { UniqueFd fd; using Reply = Done; };
struct ResetDevice { using Reply = Done; };
struct VringKick { RingIndex ring = 0; using Reply = Done; };
struct GetMaxMemSlots { using Reply = uint64_t; };
struct AddMemReg { MemoryRegion region; using Reply = Done; };
struct RemMemReg { memory::RegionLayout layout; using Reply = Done; };
struct SetStatus { uint64_t status = 0; using Reply = Done; };
struct GetStatus { using Reply = uint64_t; };
struct GetSharedObject { Uuid uuid{}; using Reply = SharedObject; };
struct SetDeviceStateFd { uint32_t direction = 0; uint32_t phase = 0; UniqueFd fd; using Reply = StateChannel; };
struct CheckDeviceState { using Reply = uint64_t; };
struct GetShmemConfig { using Reply = ShmemConfig; };
struct GetVringBaseSkipDrain { RingIndex ring = 0; using Reply = RingState; };

using DeviceRequest =
    std::variant<GetFeatures, SetFeatures, SetOwner, ResetOwner, SetMemTable, SetLogBase, SetLogFd, SetVringNum, SetVringAddr,
                 SetVringBase, GetVringBase, SetVringKick, SetVringCall, SetVringErr, GetProtocolFeatures, SetProtocolFeatures,
                 GetQueueNum, SetVringEnable, SendRarp, NetSetMtu, SetFrontEnd, UpdateIotlb, SetVringEndian, GetConfig, SetConfig,
                 CreateCryptoSession, CloseCryptoSession, PostcopyAdvise, PostcopyListen, PostcopyEnd, GetInflightFd,
                 SetInflightFd, GpuSetSocket, ResetDevice, VringKick, GetMaxMemSlots, AddMemReg, RemMemReg, SetStatus, GetStatus,
                 GetSharedObject, SetDeviceStateFd, CheckDeviceState, GetShmemConfig, GetVringBaseSkipDrain>;
using Device = Handler<DeviceRequest>;
// clang-format on

}  // namespace ringway::vhost
