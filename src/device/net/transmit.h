// TransmitQueue: a running transmit queue: from chain to frame, to the port, and back to the driver. Belongs
// to the worker of its queue. VIRTIO "Network Device / Packet Transmission".
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "ringway/device/net/drops.h"
#include "ringway/device/net/rules.h"
#include "ringway/device/port/port.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/engine/queue_loop.h"

namespace ringway::net {

class TransmitQueue final : public engine::Queue {
 public:
  // `longest`: bytes of a frame that is not to be segmented, which may change. All that is referred to
  // outlives the queue.
  TransmitQueue(engine::QueueLoop& loop, port::Port& port, uint16_t pair,
                const std::atomic<uint32_t>& longest, const Rulebook& rulebook, Drops& drops);
  ~TransmitQueue() override {
    if (on_end) on_end();
  }

  void process(ring::Chain chain) override;
  bool process_batch(std::span<ring::Chain> chains) override;
  void flush() override {
    outlet_->flush();
    if (rulebook_.edition() != edition_) [[unlikely]]
      look_at_rules();
  }
  void drain() override { outlet_->drain(); }

  // A frame of the device's own, at once. It must live until its end, which may come after the end of this
  // queue.
  port::Outlet::Sent send_own(port::Frame& frame);

  std::function<void()> on_end;  // called when the queue stops; may be none

 private:
  // One frame under way, or one that has ended behind such a one: chains come back in order, whatever the
  // port ends first (engine::Model::uses_in_order).
  struct Passage : port::Frame {
    ring::Chain chain;
    TransmitQueue* queue = nullptr;
    Passage* next_free = nullptr;
    Passage* behind = nullptr;  // sent after it
    bool has_ended = false;
    std::array<std::byte, port::max_head> own_head;
  };
  bool read_header(ring::Reader& from, port::Header& header) const;
  [[nodiscard]] Passage* passage_for(const ring::Chain& chain);
  void send(std::span<ring::Chain> chains);
  void wait_in_line(Passage& passage, ring::Chain chain, bool has_ended);
  Passage* drop(Drop reason);
  void complete_oldest();
  Passage& take_free() { return *std::exchange(free_, free_->next_free); }
  void release(Passage& passage) { passage.next_free = std::exchange(free_, &passage); }
  void look_at_rules();
  static void frame_done(port::Frame& frame);

  engine::QueueLoop& loop_;
  const Rulebook& rulebook_;
  uint64_t edition_ = 0;  // of the rules that were looked at
  Drops& drops_;
  const uint64_t features_;
  const size_t header_;  // bytes
  const bool big_endian_;
  const std::atomic<uint32_t>& longest_now_;
  uint32_t longest_ = 0;  // for the present batch
  const uint32_t head_;   // bytes that the port wants to have
  const std::unique_ptr<port::Outlet> outlet_;
  const std::unique_ptr<Passage[]> passages_;  // one for each ring entry
  Passage* oldest_ = nullptr;                  // of those in line; null: all that was sent has come back
  Passage* newest_ = nullptr;
  Passage* free_ = nullptr;  // that ended last first: the same few are used again and again, and stay cached
};

// The transmit queue of a ring that is disabled: its frames are used, and go nowhere. vhost-user "Ring
// states".
class DiscardingQueue final : public engine::Queue {
 public:
  DiscardingQueue(engine::QueueLoop& loop, Drops& drops) : loop_(loop), drops_(drops) {}
  void process(ring::Chain chain) override {
    drops_.count(Drop::disabled);
    loop_.complete(std::move(chain), 0);
  }

 private:
  engine::QueueLoop& loop_;
  Drops& drops_;
};

}  // namespace ringway::net
