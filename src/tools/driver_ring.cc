#include "ringway/tools/driver_ring.h"

namespace ringway::tools {

uint64_t DriverRing::memory_bytes(uint32_t size, const ring::Format& format, uint32_t table_entries) {
  return round_up_to_page(ring::DriverLayout::of(size, format, table_entries).bytes);
}

Result<DriverRing> DriverRing::make(uint32_t size, const ring::Format& format, uint32_t table_entries,
                                    GuestMemory& memory) {
  const ring::DriverLayout layout = ring::DriverLayout::of(size, format, table_entries);
  const GuestBlock area = TRY(memory.take(layout.bytes, guest_page_bytes));
  return DriverRing{.driver = TRY(ring::make_driver({.size = size,
                                                     .format = format,
                                                     .base = {},
                                                     .table_entries = table_entries,
                                                     .area = area.bytes.data(),
                                                     .address = area.address})),
                    .addresses = {.desc = {area.address.value + layout.desc},
                                  .driver = {area.address.value + layout.driver},
                                  .device = {area.address.value + layout.device}},
                    .device_area = area.bytes.data() + layout.device};
}

}  // namespace ringway::tools
