// ReceiveQueue: a running receive queue: the driver's buffers that wait for frames, and how a port's frames
// get into them. Belongs to the worker of its queue. VIRTIO "Network Device / Setting Up Receive Buffers",
// "Processing of Incoming Packets".
#pragma once

#include <bit>
#include <cstddef>
#include <memory>
#include <vector>

#include "ringway/device/net/drops.h"
#include "ringway/device/net/rules.h"
#include "ringway/device/net/team.h"
#include "ringway/device/port/port.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/engine/queue_loop.h"

namespace ringway::net {

class ReceiveQueue final : public engine::Queue, public port::Receiver {
 public:
  // What all receive queues of a device share; outlives them.
  struct Shared {
    const Rulebook& rulebook;
    Team& team;
    Drops& drops;
  };
  ReceiveQueue(engine::QueueLoop& loop, uint16_t pair, const Shared& shared);
  ~ReceiveQueue() override;
  // What arrives at the port for this pair is delivered here from now on.
  void open_inlet(port::Port& port) { inlet_ = port.open_inlet(loop_.worker(), pair_, *this); }

  // Queue
  void process(ring::Chain chain) override;
  bool process_batch(std::span<ring::Chain> chains) override;
  void flush() override;
  void drain() override;
  [[nodiscard]] size_t appetite() const override { return waiting() < wanted_ ? wanted_ - waiting() : 0; }
  [[nodiscard]] size_t steady_bytes() const override { return header_; }

  // Receiver
  bool deliver(const port::Frame& frame) override;
  size_t deliver_batch(std::span<const port::Frame* const> frames) override;
  void expect(size_t frames) override;
  std::span<const iovec> reserve(uint32_t bytes) override;
  bool commit(const port::Offload& offload, uint32_t length, std::span<const std::byte> rest) override;
  [[nodiscard]] uint64_t accepts() const override { return shared_.rulebook.offloads(); }

 private:
  class Filler;
  // What is known of a frame when somebody has looked into it: the head is a private copy, of which the
  // pieces' first bytes, `skip` of them, are a part.
  struct Looked {
    std::span<const std::byte> head;
    size_t skip = 0;
    HashResult hash;
  };
  // port::Header as it lies in memory, made in registers: written field by field and copied, it would wait
  // for every store before it, also for those to cache lines that the driver still holds.
  struct HeaderWords {
    uint64_t first = 0;   // flags to csum_start
    uint32_t second = 0;  // csum_offset, num_buffers
    uint32_t hash_value = 0;
    uint32_t hash_report = 0;  // and padding
    uint32_t none = 0;
  };
  static_assert(offsetof(HeaderWords, hash_value) == port::plain_header &&
                std::endian::native == std::endian::little);
  // How many of the waiting chains take a frame.
  struct Plan {
    enum Outcome : uint8_t { fits, not_now, never } outcome;
    uint32_t chains = 0;
  };
  // So many buffers are taken from the ring before a frame needs them: early enough for their lines to come,
  // late enough for the driver to be done with those of their descriptors, and few enough for the cache.
  static constexpr uint32_t ahead = 64;
  static constexpr uint32_t low = 16;       // so few are left: more are taken before the next turn
  static constexpr uint32_t one_more = 32;  // buffers, when those that are here do not suffice
  [[nodiscard]] uint32_t waiting() const { return end_ - begin_; }
  [[nodiscard]] ring::Chain& at(uint32_t number) const { return waiting_[number & mask_]; }
  [[nodiscard]] uint64_t room_of(uint32_t number) const { return at(number).writer().remaining(); }
  [[nodiscard]] bool may_take(const port::Offload& offload) const {
    return port::is_plain(offload) || port::accepted(offload, accepts());
  }
  void return_short_buffers();
  Plan plan(uint64_t bytes);
  bool take_more();
  // As often suffices for the whole ring, and a driver that adds useless buffers cannot keep us with it.
  [[nodiscard]] uint32_t most_tries() const { return loop_.ring_size() / one_more + 1; }
  [[nodiscard]] HeaderWords header_for(const port::Offload& offload, uint32_t chains,
                                       const HashResult& hash) const;
  const Rules& rules();
  bool deliver_one(const port::Frame& frame) {
    return is_blind_ ? take(frame, {.head = frame.head}) : look_and_take(frame);
  }
  bool take(const port::Frame& frame, const Looked& looked);
  bool take_in_one_piece(const port::Frame& frame, const Looked& looked);
  bool look_and_take(const port::Frame& frame);
  bool pass_on(uint16_t pair, const port::Frame& frame, const Looked& looked);
  void take_arrivals();
  std::span<const iovec> reserve_scratch();
  bool starve();

  engine::QueueLoop& loop_;
  const uint16_t pair_;
  const Shared shared_;
  const size_t header_;  // bytes
  const bool mergeable_;
  const bool big_endian_;
  const uint32_t mask_;
  const uint32_t plain_second_;                   // HeaderWords::second of a frame on which no work is left
  const std::unique_ptr<ring::Chain[]> waiting_;  // from begin_ to end_, modulo 2^32, then the mask
  uint32_t begin_ = 0;
  uint32_t end_ = 0;
  uint32_t fetched_ = 0;     // buffers up to this one are on their way into the cache
  uint32_t wanted_ = ahead;  // buffers that are to wait
  bool starved_ = false;     // the port waits for buffers
  uint64_t edition_ = 0;     // of rules_
  bool is_blind_ = true;     // by rules_
  std::shared_ptr<const Rules> rules_;
  std::vector<std::byte>
      scratch_;  // reserved instead of the driver's buffers, for frames that are looked into
  bool scratch_reserved_ = false;
  std::vector<iovec> reserved_;  // for the bytes behind the header, from begin_ on; never grows
  std::unique_ptr<port::Inlet> inlet_;
};

}  // namespace ringway::net
