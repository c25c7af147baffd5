// A ring in guest memory, driver's side, and where the device finds it. Owned by one thread, as ring::Driver.
#pragma once

#include <cstdint>

#include "ringway/base/result.h"
#include "ringway/ring/driver.h"
#include "ringway/tools/guest_memory.h"

namespace ringway::tools {

struct RingAddresses {
  memory::GuestAddress desc;
  memory::GuestAddress driver;
  memory::GuestAddress device;
};

struct DriverRing {
  ring::Driver driver;
  RingAddresses addresses;
  const std::byte* device_area = nullptr;  // used ring, or device event suppression

  // Guest memory that make() takes at most.
  static uint64_t memory_bytes(uint32_t size, const ring::Format& format, uint32_t table_entries);
  // Empty, from the start. `table_entries` as in ring::DriverConfig.
  static Result<DriverRing> make(uint32_t size, const ring::Format& format, uint32_t table_entries,
                                 GuestMemory& memory);
};

}  // namespace ringway::tools
