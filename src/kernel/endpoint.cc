#include "ringway/kernel/endpoint.h"

#include <cstring>

namespace ringway::kernel {

Result<> Endpoint::set_features(Ioctls& file, uint64_t features) {
  return set<__u64>(file, VHOST_SET_FEATURES, features);
}

// The regions follow the structure, which C++ has no type for.
Result<> Endpoint::set_memory(Ioctls& file, const memory::Map& now) {
  const auto regions = now.regions();
  std::vector<std::byte> bytes(sizeof(vhost_memory) + regions.size() * sizeof(vhost_memory_region));
  const vhost_memory head{.nregions = static_cast<__u32>(regions.size())};
  std::memcpy(bytes.data(), &head, sizeof head);
  std::byte* at = bytes.data() + sizeof head;
  for (const auto& region : regions) {
    const vhost_memory_region one{.guest_phys_addr = region->layout().guest.value,
                                  .memory_size = region->layout().size,
                                  .userspace_addr = reinterpret_cast<uintptr_t>(region->data())};
    std::memcpy(at, &one, sizeof one);
    at += sizeof one;
  }
  return file.ioctl(VHOST_SET_MEM_TABLE, bytes.data());
}

Result<std::vector<std::byte>> Endpoint::read_config(Ioctls&, uint32_t, uint32_t) {
  return refused("the kernel has no configuration space for this device");
}

Result<> Endpoint::write_config(Ioctls&, uint32_t, std::span<const std::byte>) {
  return refused("the kernel has no configuration space for this device");
}

Result<uint64_t> Endpoint::status(Ioctls&) { return refused("the kernel keeps no status for this device"); }

Result<> Endpoint::set_config_call(Ioctls&, int) {
  return refused("the kernel tells no changes of the configuration of this device");
}

}  // namespace ringway::kernel
