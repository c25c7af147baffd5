#include "ringway/kernel/tuning.h"

#include <algorithm>

namespace ringway::kernel {
namespace {

// A number that the kernel tells of a ring.
Result<uint32_t> number_of(Ioctls& file, unsigned long request, RingIndex ring) {
  return TRY(get(file, request, vhost_vring_state{.index = ring})).num;
}

}  // namespace

Result<uint32_t> new_worker(Ioctls& file) {
  return TRY(get<vhost_worker_state>(file, VHOST_NEW_WORKER)).worker_id;
}

Result<> free_worker(Ioctls& file, uint32_t worker) {
  return set(file, VHOST_FREE_WORKER, vhost_worker_state{.worker_id = worker});
}

Result<> attach_worker(Ioctls& file, RingIndex ring, uint32_t worker) {
  return set(file, VHOST_ATTACH_VRING_WORKER, vhost_vring_worker{.index = ring, .worker_id = worker});
}

Result<uint32_t> worker_of(Ioctls& file, RingIndex ring) {
  return TRY(get(file, VHOST_GET_VRING_WORKER, vhost_vring_worker{.index = ring})).worker_id;
}

Result<> set_fork_owner(Ioctls& file, ForkOwner owner) {
  return set(file, VHOST_SET_FORK_FROM_OWNER, static_cast<__u8>(owner));
}

Result<ForkOwner> fork_owner(Ioctls& file) {
  return static_cast<ForkOwner>(TRY(get<__u8>(file, VHOST_GET_FORK_FROM_OWNER)));
}

Result<> reset_owner(Ioctls& file) { return file.ioctl(VHOST_RESET_OWNER, nullptr); }

Result<bool> is_big_endian(Ioctls& file, RingIndex ring) {
  return TRY(number_of(file, VHOST_GET_VRING_ENDIAN, ring)) == VHOST_VRING_BIG_ENDIAN;
}

Result<> set_busyloop_timeout(Ioctls& file, RingIndex ring, std::chrono::microseconds timeout) {
  if (timeout.count() < 0 || timeout.count() > UINT32_MAX) return refused("no time to poll for");
  return set(file, VHOST_SET_VRING_BUSYLOOP_TIMEOUT,
             vhost_vring_state{.index = ring, .num = static_cast<uint32_t>(timeout.count())});
}

Result<std::chrono::microseconds> busyloop_timeout(Ioctls& file, RingIndex ring) {
  return std::chrono::microseconds(TRY(number_of(file, VHOST_GET_VRING_BUSYLOOP_TIMEOUT, ring)));
}

// Words that the kernel does not have are zeros.
Result<std::vector<uint64_t>> features_array(Ioctls& file, size_t words) {
  std::vector<uint64_t> message(1 + words);
  message[0] = words;
  TRY(file.ioctl(VHOST_GET_FEATURES_ARRAY, message.data()));
  return std::vector<uint64_t>(message.begin() + 1, message.end());
}

Result<> set_features_array(Ioctls& file, const std::vector<uint64_t>& features) {
  std::vector<uint64_t> message{features.size()};
  message.insert(message.end(), features.begin(), features.end());
  return file.ioctl(VHOST_SET_FEATURES_ARRAY, message.data());
}

Result<bool> events_missed(Ioctls& file) { return TRY(get<__u32>(file, VHOST_SCSI_GET_EVENTS_MISSED)) != 0; }

Result<> set_events_missed(Ioctls& file, bool missed) {
  return set<__u32>(file, VHOST_SCSI_SET_EVENTS_MISSED, missed ? 1 : 0);
}

Result<uint32_t> vdpa_device_id(Ioctls& file) { return get<__u32>(file, VHOST_VDPA_GET_DEVICE_ID); }
Result<uint32_t> vdpa_address_spaces(Ioctls& file) { return get<__u32>(file, VHOST_VDPA_GET_AS_NUM); }
Result<uint32_t> vdpa_groups(Ioctls& file) { return get<__u32>(file, VHOST_VDPA_GET_GROUP_NUM); }

Result<uint32_t> vdpa_group_of(Ioctls& file, RingIndex ring) {
  return number_of(file, VHOST_VDPA_GET_VRING_GROUP, ring);
}

Result<uint32_t> vdpa_descriptor_group_of(Ioctls& file, RingIndex ring) {
  return number_of(file, VHOST_VDPA_GET_VRING_DESC_GROUP, ring);
}

Result<> vdpa_set_address_space(Ioctls& file, uint32_t group, uint32_t address_space) {
  return set(file, VHOST_VDPA_SET_GROUP_ASID, vhost_vring_state{.index = group, .num = address_space});
}

Result<uint32_t> vdpa_ring_size(Ioctls& file, RingIndex ring) {
  return number_of(file, VHOST_VDPA_GET_VRING_SIZE, ring);
}

Result<> vdpa_suspend(Ioctls& file) { return file.ioctl(VHOST_VDPA_SUSPEND, nullptr); }
Result<> vdpa_resume(Ioctls& file) { return file.ioctl(VHOST_VDPA_RESUME, nullptr); }

}  // namespace ringway::kernel
