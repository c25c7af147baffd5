#include "ringway/tools/blk_driver.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "ringway/base/endian.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::tools {
namespace {

struct Header {
  le32 type;
  le32 reserved;
  le64 sector;
};
static_assert(sizeof(Header) == sizeof(virtio_blk_outhdr));

struct WireRange {
  le64 sector;
  le32 sectors;
  le32 flags;
};
static_assert(sizeof(WireRange) == sizeof(virtio_blk_discard_write_zeroes));

}  // namespace

uint32_t BlkDriver::Options::descriptors() const {
  const uint32_t pieces = piece_bytes == 0 ? 1 : (data_bytes + piece_bytes - 1) / piece_bytes;
  return pieces + 2;  // header and status
}

uint64_t BlkDriver::Options::memory_bytes() const {
  const uint32_t table = format.indirect ? descriptors() : 0;
  return DriverRing::memory_bytes(ring_size, format, table) + round_up_to_page(slots * header_stride) +
         round_up_to_page(slots * status_stride) + slots * round_up_to_page(data_bytes);
}

Result<BlkDriver> BlkDriver::make(const Options& options, GuestMemory& memory) {
  if (options.slots == 0 || options.data_bytes < 512)
    return refused("a queue needs slots, and a sector for each");
  const uint32_t table = options.format.indirect ? options.descriptors() : 0;
  if (table == 0 && options.descriptors() > options.ring_size) {
    return refused("a request needs more descriptors than the ring has", options.descriptors());
  }
  BlkDriver driver(options, TRY(DriverRing::make(options.ring_size, options.format, table, memory)));
  driver.headers_ = TRY(memory.take(options.slots * header_stride, guest_page_bytes));
  driver.statuses_ = TRY(memory.take(options.slots * status_stride, guest_page_bytes));
  driver.data_stride_ = round_up_to_page(options.data_bytes);
  driver.data_ = TRY(memory.take(options.slots * driver.data_stride_, guest_page_bytes));
  return driver;
}

ring::RingBase BlkDriver::restart_base() const {
  if (options_.format.packed) return {};
  const auto used = memory::load<uint16_t>(device_area_ + ring::index_at, std::memory_order_acquire);
  return {.avail = used, .used = used};
}

BlkDriver::BlkDriver(const Options& options, DriverRing ring)
    : options_(options),
      driver_(std::move(ring.driver)),
      addresses_(ring.addresses),
      device_area_(ring.device_area),
      slot_of_token_(options.ring_size),
      least_written_(options.slots) {
  buffers_.reserve(options.descriptors());
  free_.reserve(options.slots);
  for (uint16_t slot = options.slots; slot-- > 0;) free_.push_back(slot);
}

bool BlkDriver::start(uint16_t slot, const Command& command) {
  const uint32_t bytes = command.readable + command.writable;
  assert((command.readable == 0 || command.writable == 0) && bytes <= options_.data_bytes);
  const Header wire{.type = command.type, .reserved = 0, .sector = command.sector};
  memory::copy_in(header(slot), &wire, sizeof wire);
  memory::store(status(slot), no_status);
  buffers_.clear();
  buffers_.push_back({.address = {headers_.address.value + slot * header_stride}, .length = sizeof wire});
  push_pieces(slot, bytes);
  buffers_.push_back({.address = {statuses_.address.value + slot * status_stride}, .length = 1});

  const std::span<const ring::Buffer> all(buffers_);
  const size_t readable = command.readable > 0 ? all.size() - 1 : 1;
  const ring::Buffers chain{.readable = all.first(readable), .writable = all.subspan(readable)};
  const auto token = std::visit([&](auto& driver) { return driver.add(chain); }, driver_);
  if (!token) return false;
  slot_of_token_[*token] = slot;
  least_written_[slot] = command.writable + 1;
  return true;
}

void BlkDriver::push_pieces(uint16_t slot, uint32_t bytes) {
  const uint64_t begin = data_.address.value + slot * data_stride_;
  const uint32_t most = options_.piece_bytes == 0 ? bytes : options_.piece_bytes;
  for (uint32_t at = 0; at < bytes; at += most) {
    buffers_.push_back({.address = {begin + at}, .length = std::min(most, bytes - at)});
  }
}

bool BlkDriver::start_ranges(uint16_t slot, uint32_t type, std::span<const Range> ranges) {
  const std::span<std::byte> to = data(slot);
  assert(ranges.size() * sizeof(WireRange) <= to.size());
  size_t at = 0;
  for (const Range& range : ranges) {
    const WireRange wire{.sector = range.sector,
                         .sectors = range.sectors,
                         .flags = range.unmap ? uint32_t{VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP} : 0};
    memory::copy_in(to.data() + at, &wire, sizeof wire);
    at += sizeof wire;
  }
  return start(slot, {.type = type, .readable = static_cast<uint32_t>(at)});
}

void BlkDriver::publish() {
  const bool wanted = std::visit([](auto& driver) { return driver.publish(); }, driver_);
  if (!wanted || !kick_) return;
  kick_.signal();
  ++kicks_;
}

Result<std::optional<BlkDone>> BlkDriver::take() {
  const auto taken = std::visit([](auto& driver) { return driver.take_used(); }, driver_);
  if (!taken) return std::unexpected(taken.error());
  const std::optional<ring::Used>& used = *taken;
  if (!used) return std::nullopt;
  const uint16_t slot = slot_of_token_[used->token];
  const auto result = memory::load<uint8_t>(status(slot));
  return BlkDone{.slot = slot,
                 .status = result,
                 .overlong = used->overlong,
                 .short_used = result == VIRTIO_BLK_S_OK && used->written < least_written_[slot]};
}

void BlkDriver::disable_calls() {
  std::visit([](auto& driver) { driver.disable_calls(); }, driver_);
}

bool BlkDriver::enable_calls() {
  return std::visit([](auto& driver) { return driver.enable_calls(); }, driver_);
}

uint32_t BlkDriver::in_flight() const {
  return std::visit([](const auto& driver) { return driver.in_flight(); }, driver_);
}

}  // namespace ringway::tools
