#include "ringway/tools/net_driver.h"

#include <bit>
#include <cassert>
#include <utility>

namespace ringway::tools {

uint64_t NetRingOptions::memory_bytes() const {
  return DriverRing::memory_bytes(ring_size, format, table_entries()) +
         round_up_to_page(ring_size * stride());
}

// ---- NetRing

Result<NetRing> NetRing::make_ring(const NetRingOptions& options, GuestMemory& memory) {
  assert(options.buffer_bytes > net_header_bytes);
  if (options.descriptors() > options.ring_size) return refused("the ring has no room for a frame");
  DriverRing ring = TRY(DriverRing::make(options.ring_size, options.format, options.table_entries(), memory));
  const GuestBlock buffers = TRY(memory.take(options.ring_size * options.stride(), guest_page_bytes));
  return NetRing(options, std::move(ring), buffers);
}

NetRing::NetRing(const NetRingOptions& options, DriverRing ring, GuestBlock memory)
    : options_(options),
      driver_(std::move(ring.driver)),
      addresses_(ring.addresses),
      memory_(memory),
      stride_(options.stride()) {}

void NetRing::publish() {
  const bool wanted = std::visit([](auto& driver) { return driver.publish(); }, driver_);
  if (!wanted || !kick_) return;
  kick_.signal();
  ++kicks_;
}

void NetRing::disable_calls() {
  std::visit([](auto& driver) { driver.disable_calls(); }, driver_);
}

bool NetRing::enable_calls() {
  return std::visit([](auto& driver) { return driver.enable_calls(); }, driver_);
}

uint32_t NetRing::in_flight() const {
  return std::visit([](const auto& driver) { return driver.in_flight(); }, driver_);
}

// ---- Transmitter

Result<uint32_t> Transmitter::reclaim(uint32_t most) {
  return std::visit(
      [&](auto& driver) -> Result<uint32_t> {
        uint32_t count = 0;
        while (count < most && driver.in_flight() > 0) {
          if (!TRY(driver.take_used())) break;
          ++count;
        }
        return count;
      },
      driver_);
}

// ---- Receiver

Receiver::Receiver(NetRing ring, bool mergeable) : NetRing(std::move(ring)), mergeable_(mergeable) {
  parts_.reserve(options_.ring_size);
}

void Receiver::refill() {
  std::visit(
      [&](auto& driver) {
        while (driver.free_descriptors() >= options_.descriptors()) {
          (void)driver.add({.readable = {}, .writable = pieces(driver.next_token(), options_.buffer_bytes)});
        }
      },
      driver_);
}

Result<uint32_t> Receiver::take_batch() {
  return std::visit(
      [&](auto& driver) -> Result<uint32_t> {
        uint32_t count = 0;
        for (; count < batch_.size(); ++count) {
          const auto used = TRY(driver.take_used());
          if (!used) break;
          batch_[count] = *used;
          __builtin_prefetch(buffer(used->token).data());
        }
        return count;
      },
      driver_);
}

Result<bool> Receiver::append(const ring::Used& used) {
  if (used.overlong) return violation("a receive buffer has not so many bytes", used.token);
  if (missing_ == 0) {
    TRY(begin(used));
  } else {
    parts_.push_back({.token = used.token, .bytes = used.written});
    frame_bytes_ += used.written;
  }
  // VIRTIO "Processing of Incoming Packets": only the last may have room left.
  if (--missing_ > 0 && used.written < options_.buffer_bytes) {
    return violation("a buffer of a merged frame is not full", used.written);
  }
  return missing_ == 0;
}

Result<> Receiver::begin(const ring::Used& used) {
  if (used.written <= net_header_bytes) return violation("a received frame has no bytes", used.written);
  uint16_t count = 1;
  if (mergeable_) {
    const std::byte* const at = buffer(used.token).data() + offsetof(port::Header, num_buffers);
    count = std::bit_cast<le16>(memory::load<uint16_t>(at));
    if (count == 0 || count > options_.ring_size) return violation("num_buffers makes no sense", count);
  }
  missing_ = count;
  parts_.clear();
  parts_.push_back({.token = used.token, .bytes = used.written});
  frame_bytes_ = used.written - net_header_bytes;
  return {};
}

size_t Receiver::copy(const Received& frame, std::span<std::byte> to) const {
  size_t at = 0;
  for (const Received::Part& part : frame.parts) {
    const size_t bytes = std::min<size_t>(part.bytes, to.size() - at);
    memory::copy_out(to.data() + at, buffer(part.token).data(), bytes);
    at += bytes;
  }
  return at;
}

}  // namespace ringway::tools
