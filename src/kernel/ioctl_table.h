// The table of all ioctls of the kernel's vhost: what each is called, which devices have it, and what moves
// between caller and kernel. Who calls them (kernel_device.h) and who serves them take names and sizes from
// here. Any thread. linux/vhost.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ringway/kernel/uapi.h"

namespace ringway::kernel {

// Which device files have an ioctl.
enum class Family : uint8_t { any, net, scsi, vsock, vdpa };

// What the third argument of ioctl() points at. The structures are linux/vhost_types.h's.
enum class Argument : uint8_t {
  nothing,  // the argument is not used
  u8,
  u16,
  u32,
  u64,
  file,            // int: a file descriptor, -1 for none
  number,          // int
  log_base,        // __u64 that holds a pointer of the caller: the log
  vring_state,     // vhost_vring_state
  vring_addr,      // vhost_vring_addr, with pointers of the caller
  vring_file,      // vhost_vring_file
  vring_worker,    // vhost_vring_worker
  worker_state,    // vhost_worker_state
  memory,          // vhost_memory, followed by regions, with pointers of the caller
  features_array,  // vhost_features_array, followed by __u64
  scsi_target,     // vhost_scsi_target
  vdpa_config,     // vhost_vdpa_config, followed by bytes
  iova_range,      // vhost_vdpa_iova_range
};

// What really moves. The direction in the number of an ioctl is wrong for some: GET_VRING_ENDIAN, both
// GET_ of SCSI, VDPA_GET_CONFIG, GET_FEATURES_ARRAY.
enum class Direction : uint8_t { none, to_kernel, from_kernel, both };

// Elements that follow the fixed part of an argument.
struct Tail {
  size_t element = 0;       // bytes of each; 0: there is no tail
  size_t count_offset = 0;  // where in the fixed part their number is, native endian
  size_t count_size = 0;    // bytes of that number: 4 or 8
};

struct IoctlInfo {
  unsigned long request = 0;  // what ioctl() is called with
  const char* name = "";      // of linux/vhost.h, without VHOST_
  Argument argument = Argument::nothing;
  Direction direction = Direction::none;
  Family family = Family::any;
  // Its first word is the index of a ring, which must be checked before anything else.
  bool has_ring = false;
};

// In the order of their numbers.
[[nodiscard]] std::span<const IoctlInfo> ioctl_table();
// Null: there is no such ioctl. The upper half of `request` is ignored, as the kernel does.
[[nodiscard]] const IoctlInfo* find_ioctl(unsigned long request);

// Bytes of the fixed part.
[[nodiscard]] size_t size_of(Argument argument);
[[nodiscard]] Tail tail_of(Argument argument);

[[nodiscard]] constexpr bool serves(Family device, Family ioctl) {
  return ioctl == Family::any || ioctl == device;
}

}  // namespace ringway::kernel
