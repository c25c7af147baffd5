#include "ringway/ring/driver.h"

#include <bit>
#include <cstring>

#include "ringway/ring/layout.h"

namespace ringway::ring {
namespace {

uint64_t round_up(uint64_t bytes) {
  return (bytes + DriverLayout::alignment - 1) / DriverLayout::alignment * DriverLayout::alignment;
}

}  // namespace

DriverLayout DriverLayout::of(uint32_t size, const Format& format, uint32_t table_entries) {
  DriverLayout layout;
  layout.driver = round_up(RingConfig::desc_bytes(size, format));
  layout.device = layout.driver + round_up(RingConfig::driver_bytes(size, format));
  layout.tables = layout.device + round_up(RingConfig::device_bytes(size, format));
  layout.table_bytes = round_up(uint64_t{table_entries} * descriptor_bytes);
  layout.bytes = layout.tables + size * layout.table_bytes;
  return layout;
}

Result<> DriverConfig::validate() const {
  if (size == 0 || size > max_size) return refused("ring size is not between 1 and 32768", size);
  if (!format.packed && !std::has_single_bit(size))
    return refused("split ring size is not a power of two", size);
  if (format.packed && format.big_endian) return refused("packed rings are little-endian");
  if (format.packed && base.avail >= size)
    return refused("packed available index is not in the ring", base.avail);
  if (table_entries > 0 && !format.indirect) return refused("indirect tables without VIRTIO_F_INDIRECT_DESC");
  if (table_entries > max_size) return refused("indirect tables are too long", table_entries);
  if (reinterpret_cast<uintptr_t>(area) % DriverLayout::alignment != 0)
    return refused("driver's area is misaligned");
  if (address.value % DriverLayout::alignment != 0)
    return refused("driver's area is misaligned", address.value);
  return {};
}

Result<Driver> make_driver(const DriverConfig& config) {
  TRY(config.validate());
  std::memset(config.area, 0, config.layout().bytes);
  if (config.format.packed) return PackedDriver(config);
  return SplitDriver(config);
}

}  // namespace ringway::ring
