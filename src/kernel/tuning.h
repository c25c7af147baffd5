// What the kernel's vhost can be told that vhost-user has no message for, one function each. All need the
// owner of the file. Any thread. Where a kernel lacks one, its errno means nothing in particular: for a
// number that it does not know it takes the argument for a ring first. linux/vhost.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "ringway/kernel/ioctls.h"
#include "ringway/vhost/request.h"

namespace ringway::kernel {

using vhost::RingIndex;

// ---- threads (Linux 6.5). A device has one worker for all rings from the start.
Result<uint32_t> new_worker(Ioctls& file);
Result<> free_worker(Ioctls& file, uint32_t worker);  // no ring may be attached to it
Result<> attach_worker(Ioctls& file, RingIndex ring, uint32_t worker);
Result<uint32_t> worker_of(Ioctls& file, RingIndex ring);

// Before the file has an owner: workers are threads of the owner's, or the kernel's own (Linux 6.18).
enum class ForkOwner : uint8_t { kernel_thread = VHOST_FORK_OWNER_KTHREAD, task = VHOST_FORK_OWNER_TASK };
Result<> set_fork_owner(Ioctls& file, ForkOwner owner);
Result<ForkOwner> fork_owner(Ioctls& file);

// The file is as it was when it was opened: no owner, no memory, no rings (vhost-net). The device of
// vhost-user's message of that name does not do it: there it only stops rings.
Result<> reset_owner(Ioctls& file);

// As SET_VRING_ENDIAN has told.
Result<bool> is_big_endian(Ioctls& file, RingIndex ring);

// How long the kernel polls a ring before it waits for a kick; 0: not at all.
Result<> set_busyloop_timeout(Ioctls& file, RingIndex ring, std::chrono::microseconds timeout);
Result<std::chrono::microseconds> busyloop_timeout(Ioctls& file, RingIndex ring);

// ---- features in words of 64 bits, the first are those of GET_FEATURES (Linux 6.18, vhost-net).
Result<std::vector<uint64_t>> features_array(Ioctls& file, size_t words);
Result<> set_features_array(Ioctls& file, const std::vector<uint64_t>& features);

// ---- vhost-scsi: an event for the driver found no buffer.
Result<bool> events_missed(Ioctls& file);
Result<> set_events_missed(Ioctls& file, bool missed);

// ---- vhost-vdpa
Result<uint32_t> vdpa_device_id(Ioctls& file);  // VIRTIO "Device Types"
Result<uint32_t> vdpa_address_spaces(Ioctls& file);
Result<uint32_t> vdpa_groups(Ioctls& file);  // of rings that share an address space
Result<uint32_t> vdpa_group_of(Ioctls& file, RingIndex ring);
Result<uint32_t> vdpa_descriptor_group_of(Ioctls& file, RingIndex ring);
Result<> vdpa_set_address_space(Ioctls& file, uint32_t group, uint32_t address_space);
Result<uint32_t> vdpa_ring_size(Ioctls& file, RingIndex ring);
Result<> vdpa_suspend(Ioctls& file);
Result<> vdpa_resume(Ioctls& file);

}  // namespace ringway::kernel
