#include "ringway/kernel/ioctl_table.h"

#include <algorithm>
#include <array>

namespace ringway::kernel {
namespace {

using enum Argument;
using enum Direction;

// clang-format off: a table
constexpr auto table = std::to_array<IoctlInfo>({
    {VHOST_GET_FEATURES, "GET_FEATURES", u64, from_kernel, Family::any},
    {VHOST_SET_FEATURES, "SET_FEATURES", u64, to_kernel, Family::any},
    {VHOST_SET_OWNER, "SET_OWNER", nothing, none, Family::any},
    {VHOST_RESET_OWNER, "RESET_OWNER", nothing, none, Family::net},
    {VHOST_SET_MEM_TABLE, "SET_MEM_TABLE", memory, to_kernel, Family::any},
    {VHOST_SET_LOG_BASE, "SET_LOG_BASE", log_base, to_kernel, Family::any},
    {VHOST_SET_LOG_FD, "SET_LOG_FD", file, to_kernel, Family::any},
    {VHOST_NEW_WORKER, "NEW_WORKER", worker_state, from_kernel, Family::any},
    {VHOST_FREE_WORKER, "FREE_WORKER", worker_state, to_kernel, Family::any},
    {VHOST_SET_VRING_NUM, "SET_VRING_NUM", vring_state, to_kernel, Family::any, true},
    {VHOST_SET_VRING_ADDR, "SET_VRING_ADDR", vring_addr, to_kernel, Family::any, true},
    {VHOST_SET_VRING_BASE, "SET_VRING_BASE", vring_state, to_kernel, Family::any, true},
    {VHOST_GET_VRING_BASE, "GET_VRING_BASE", vring_state, both, Family::any, true},
    {VHOST_SET_VRING_ENDIAN, "SET_VRING_ENDIAN", vring_state, to_kernel, Family::any, true},
    {VHOST_GET_VRING_ENDIAN, "GET_VRING_ENDIAN", vring_state, both, Family::any, true},
    {VHOST_ATTACH_VRING_WORKER, "ATTACH_VRING_WORKER", vring_worker, to_kernel, Family::any, true},
    {VHOST_GET_VRING_WORKER, "GET_VRING_WORKER", vring_worker, both, Family::any, true},
    {VHOST_SET_VRING_KICK, "SET_VRING_KICK", vring_file, to_kernel, Family::any, true},
    {VHOST_SET_VRING_CALL, "SET_VRING_CALL", vring_file, to_kernel, Family::any, true},
    {VHOST_SET_VRING_ERR, "SET_VRING_ERR", vring_file, to_kernel, Family::any, true},
    {VHOST_SET_VRING_BUSYLOOP_TIMEOUT, "SET_VRING_BUSYLOOP_TIMEOUT", vring_state, to_kernel, Family::any, true},
    {VHOST_GET_VRING_BUSYLOOP_TIMEOUT, "GET_VRING_BUSYLOOP_TIMEOUT", vring_state, both, Family::any, true},
    {VHOST_SET_BACKEND_FEATURES, "SET_BACKEND_FEATURES", u64, to_kernel, Family::any},
    {VHOST_GET_BACKEND_FEATURES, "GET_BACKEND_FEATURES", u64, from_kernel, Family::any},
    {VHOST_NET_SET_BACKEND, "NET_SET_BACKEND", vring_file, to_kernel, Family::net, true},
    {VHOST_SCSI_SET_ENDPOINT, "SCSI_SET_ENDPOINT", scsi_target, to_kernel, Family::scsi},
    {VHOST_SCSI_CLEAR_ENDPOINT, "SCSI_CLEAR_ENDPOINT", scsi_target, to_kernel, Family::scsi},
    {VHOST_SCSI_GET_ABI_VERSION, "SCSI_GET_ABI_VERSION", number, from_kernel, Family::scsi},
    {VHOST_SCSI_SET_EVENTS_MISSED, "SCSI_SET_EVENTS_MISSED", u32, to_kernel, Family::scsi},
    {VHOST_SCSI_GET_EVENTS_MISSED, "SCSI_GET_EVENTS_MISSED", u32, from_kernel, Family::scsi},
    {VHOST_VSOCK_SET_GUEST_CID, "VSOCK_SET_GUEST_CID", u64, to_kernel, Family::vsock},
    {VHOST_VSOCK_SET_RUNNING, "VSOCK_SET_RUNNING", number, to_kernel, Family::vsock},
    {VHOST_VDPA_GET_DEVICE_ID, "VDPA_GET_DEVICE_ID", u32, from_kernel, Family::vdpa},
    {VHOST_VDPA_GET_STATUS, "VDPA_GET_STATUS", u8, from_kernel, Family::vdpa},
    {VHOST_VDPA_SET_STATUS, "VDPA_SET_STATUS", u8, to_kernel, Family::vdpa},
    {VHOST_VDPA_GET_CONFIG, "VDPA_GET_CONFIG", vdpa_config, both, Family::vdpa},
    {VHOST_VDPA_SET_CONFIG, "VDPA_SET_CONFIG", vdpa_config, to_kernel, Family::vdpa},
    {VHOST_VDPA_SET_VRING_ENABLE, "VDPA_SET_VRING_ENABLE", vring_state, to_kernel, Family::vdpa, true},
    {VHOST_VDPA_GET_VRING_NUM, "VDPA_GET_VRING_NUM", u16, from_kernel, Family::vdpa},
    {VHOST_VDPA_SET_CONFIG_CALL, "VDPA_SET_CONFIG_CALL", file, to_kernel, Family::vdpa},
    {VHOST_VDPA_GET_IOVA_RANGE, "VDPA_GET_IOVA_RANGE", iova_range, from_kernel, Family::vdpa},
    {VHOST_VDPA_GET_CONFIG_SIZE, "VDPA_GET_CONFIG_SIZE", u32, from_kernel, Family::vdpa},
    {VHOST_VDPA_GET_AS_NUM, "VDPA_GET_AS_NUM", u32, from_kernel, Family::vdpa},
    {VHOST_VDPA_GET_VRING_GROUP, "VDPA_GET_VRING_GROUP", vring_state, both, Family::vdpa, true},
    {VHOST_VDPA_SET_GROUP_ASID, "VDPA_SET_GROUP_ASID", vring_state, to_kernel, Family::vdpa},  // index: a group
    {VHOST_VDPA_SUSPEND, "VDPA_SUSPEND", nothing, none, Family::vdpa},
    {VHOST_VDPA_RESUME, "VDPA_RESUME", nothing, none, Family::vdpa},
    {VHOST_VDPA_GET_VRING_DESC_GROUP, "VDPA_GET_VRING_DESC_GROUP", vring_state, both, Family::vdpa, true},
    {VHOST_VDPA_GET_VQS_COUNT, "VDPA_GET_VQS_COUNT", u32, from_kernel, Family::vdpa},
    {VHOST_VDPA_GET_GROUP_NUM, "VDPA_GET_GROUP_NUM", u32, from_kernel, Family::vdpa},
    {VHOST_VDPA_GET_VRING_SIZE, "VDPA_GET_VRING_SIZE", vring_state, both, Family::vdpa, true},
    {VHOST_GET_FEATURES_ARRAY, "GET_FEATURES_ARRAY", features_array, both, Family::net},
    {VHOST_SET_FEATURES_ARRAY, "SET_FEATURES_ARRAY", features_array, to_kernel, Family::net},
    {VHOST_SET_FORK_FROM_OWNER, "SET_FORK_FROM_OWNER", u8, to_kernel, Family::any},
    {VHOST_GET_FORK_FROM_OWNER, "GET_FORK_FROM_OWNER", u8, from_kernel, Family::any},
});
// clang-format on

}  // namespace

std::span<const IoctlInfo> ioctl_table() { return table; }

const IoctlInfo* find_ioctl(unsigned long request) {
  const auto* found = std::ranges::find(table, request & 0xffff'ffff, &IoctlInfo::request);
  return found == table.end() ? nullptr : found;
}

size_t size_of(Argument argument) {
  switch (argument) {
    case nothing:
      return 0;
    case u8:
      return 1;
    case u16:
      return 2;
    case u32:
      return 4;
    case u64:
    case log_base:
      return 8;
    case file:
    case number:
      return sizeof(int);
    case vring_state:
      return sizeof(vhost_vring_state);
    case vring_addr:
      return sizeof(vhost_vring_addr);
    case vring_file:
      return sizeof(vhost_vring_file);
    case vring_worker:
      return sizeof(vhost_vring_worker);
    case worker_state:
      return sizeof(vhost_worker_state);
    case memory:
      return sizeof(vhost_memory);
    case features_array:
      return sizeof(vhost_features_array);
    case scsi_target:
      return sizeof(vhost_scsi_target);
    case vdpa_config:
      return sizeof(vhost_vdpa_config);
    case iova_range:
      return sizeof(vhost_vdpa_iova_range);
  }
  return 0;
}

Tail tail_of(Argument argument) {
  switch (argument) {
    case memory:
      return {.element = sizeof(vhost_memory_region),
              .count_offset = offsetof(vhost_memory, nregions),
              .count_size = sizeof(vhost_memory::nregions)};
    case features_array:
      return {.element = sizeof(__u64),
              .count_offset = offsetof(vhost_features_array, count),
              .count_size = sizeof(vhost_features_array::count)};
    case vdpa_config:
      return {.element = 1,
              .count_offset = offsetof(vhost_vdpa_config, len),
              .count_size = sizeof(vhost_vdpa_config::len)};
    default:
      return {};
  }
}

}  // namespace ringway::kernel
