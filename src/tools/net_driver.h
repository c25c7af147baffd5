// NetRing, Transmitter and Receiver: the queues of a network device, driver's side. Each is owned by one
// thread. VIRTIO "Network Device / Device Operation".
//
// Every ring entry has a buffer of its own, by its token: a transmitter's frames may be written once and sent
// again and again, and a descriptor that stays the same is not written again. Nothing is allocated after
// make(), and no system call is made but a kick that the device asked for.
//
// The device is hostile: what it says is read once and judged.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/base/result.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/memory/shared_bytes.h"
#include "ringway/tools/driver_ring.h"

namespace ringway::tools {

// Of the header before each frame: devices with VIRTIO_F_VERSION_1 have no other.
inline constexpr uint32_t net_header_bytes = port::plain_header;

struct NetRingOptions {
  uint32_t ring_size = 0;  // entries
  ring::Format format;
  uint32_t buffer_bytes = 0;  // of each entry, with the header
  // The header has a descriptor of its own, and with indirect descriptors each frame a table.
  bool own_header = false;

  [[nodiscard]] uint32_t table_entries() const { return own_header && format.indirect ? 2 : 0; }
  // Ring entries that a frame takes.
  [[nodiscard]] uint32_t descriptors() const { return own_header && !format.indirect ? 2 : 1; }
  // From one buffer to the next. An odd number of cache lines, so that the first lines of the buffers do not
  // share a few sets of the caches.
  [[nodiscard]] uint64_t stride() const { return ((buffer_bytes + 63) / 64 | 1) * uint64_t{64}; }
  // Guest memory that all of it takes.
  [[nodiscard]] uint64_t memory_bytes() const;
};

class NetRing {
 public:
  [[nodiscard]] const RingAddresses& addresses() const { return addresses_; }
  [[nodiscard]] const NetRingOptions& options() const { return options_; }
  // Without one the device is not kicked.
  void set_kick(Notifier kick) { kick_ = std::move(kick); }

  // Header and frame of an entry.
  [[nodiscard]] std::span<std::byte> buffer(uint16_t token) const {
    return memory_.bytes.subspan(token * stride_, options_.buffer_bytes);
  }
  // Shows what was added, and kicks the device if it wants that.
  void publish();
  void disable_calls();
  // Before sleeping; true: something has come back already.
  [[nodiscard]] bool enable_calls();
  [[nodiscard]] uint32_t in_flight() const;
  [[nodiscard]] uint64_t kicks() const { return kicks_; }

 protected:
  NetRing(const NetRingOptions& options, DriverRing ring, GuestBlock memory);
  static Result<NetRing> make_ring(const NetRingOptions& options, GuestMemory& memory);

  // The pieces of an entry's buffer: the header, if it has a descriptor of its own, and the rest of `bytes`.
  [[nodiscard]] std::span<const ring::Buffer> pieces(uint16_t token, uint32_t bytes) {
    const uint64_t address = memory_.address.value + token * stride_;
    if (!options_.own_header) {
      pieces_[0] = {.address = {address}, .length = bytes};
      return {pieces_.data(), 1};
    }
    pieces_[0] = {.address = {address}, .length = net_header_bytes};
    pieces_[1] = {.address = {address + net_header_bytes}, .length = bytes - net_header_bytes};
    return pieces_;
  }

  NetRingOptions options_;
  ring::Driver driver_;

 private:
  RingAddresses addresses_;
  GuestBlock memory_;
  uint64_t stride_;
  std::array<ring::Buffer, 2> pieces_;
  Notifier kick_;
  uint64_t kicks_ = 0;
};

class Transmitter : public NetRing {
 public:
  static Result<Transmitter> make(const NetRingOptions& options, GuestMemory& memory) {
    return Transmitter(TRY(make_ring(options, memory)));
  }

  // Starts up to `most` frames, which the device sees at publish(). `fill(token)` gives the bytes of header
  // and frame that are in the entry's buffer, or writes them first. The result is how many: fewer if the ring
  // is full.
  template <class Fill>
  uint32_t send(uint32_t most, Fill&& fill) {
    return std::visit([&](auto& driver) { return send_by(driver, most, fill); }, driver_);
  }
  // Takes up to `most` frames back, and says how many. An error: the device broke the ring, for good.
  Result<uint32_t> reclaim(uint32_t most);

 private:
  explicit Transmitter(NetRing ring) : NetRing(std::move(ring)) {}
  template <class Driver, class Fill>
  uint32_t send_by(Driver& driver, uint32_t most, Fill& fill) {
    const uint32_t count = std::min(most, driver.free_descriptors() / options_.descriptors());
    for (uint32_t i = 0; i < count; ++i) {
      const uint16_t token = driver.next_token();
      const uint32_t bytes = fill(token);
      (void)driver.add({.readable = pieces(token, bytes), .writable = {}});
    }
    return count;
  }
};

// A frame that was received, in the buffers where it lies until Receiver::refill().
struct Received {
  struct Part {
    uint16_t token = 0;
    uint32_t bytes = 0;
  };
  std::span<const Part> parts;
  uint64_t bytes = 0;  // of the frame, without its header
};

class Receiver : public NetRing {
 public:
  // `mergeable`: a frame may lie in several buffers.
  static Result<Receiver> make(const NetRingOptions& options, bool mergeable, GuestMemory& memory) {
    return Receiver(TRY(make_ring(options, memory)), mergeable);
  }

  // Gives the device all buffers that are ours; it sees them at publish().
  void refill();
  // Calls use(const Received&) for each frame that has come, until it is `most` or more. The result is how
  // many. An error: the device broke the ring, for good.
  template <class Use>
  Result<uint32_t> receive(uint32_t most, Use&& use) {
    uint32_t frames = 0;
    while (frames < most || missing_ > 0) {
      const uint32_t taken = TRY(take_batch());
      if (taken == 0) break;
      for (const ring::Used& used : std::span(batch_).first(taken)) {
        if (!TRY(append(used))) continue;
        use(Received{.parts = parts_, .bytes = frame_bytes_});
        ++frames;
      }
    }
    if (missing_ > 0) return violation("a merged frame is not used as a whole", missing_);
    return frames;
  }
  // Copies a frame and its header together into `to`, as far as there is room; the result is how much of it
  // there is.
  size_t copy(const Received& frame, std::span<std::byte> to) const;
  // A few bytes of the first buffer: `offset` counts from the header.
  template <class T>
  [[nodiscard]] T peek(const Received& frame, size_t offset) const {
    T value;
    memory::copy_out(&value, buffer(frame.parts.front().token).data() + offset, sizeof value);
    return value;
  }

 private:
  // Used entries that are taken before the first is looked at, so that the loads of their headers overlap.
  static constexpr uint32_t batch_size = 32;

  Receiver(NetRing ring, bool mergeable);
  Result<uint32_t> take_batch();
  // One more buffer; true: with it the frame is complete.
  Result<bool> append(const ring::Used& used);
  Result<> begin(const ring::Used& used);

  bool mergeable_;
  std::array<ring::Used, batch_size> batch_{};
  std::vector<Received::Part> parts_;  // of the frame that is being put together
  uint64_t frame_bytes_ = 0;
  uint32_t missing_ = 0;  // buffers that it still lacks
};

}  // namespace ringway::tools
