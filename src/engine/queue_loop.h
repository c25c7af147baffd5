// QueueLoop: one running queue on its worker: pops chains, hands them to the device's Queue, publishes what
// is used, signals at most once a turn. Owned by its worker thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>

#include "ringway/base/result.h"
#include "ringway/loop/loop.h"
#include "ringway/ring/chain.h"

namespace ringway::engine {

// Fewer calls, later: the driver is called when so many chains have been used since the last call, or so long
// after the first of them.
struct CallModeration {
  uint32_t chains = 0;
  std::chrono::microseconds delay{0};
  bool operator==(const CallModeration&) const = default;
};

// What a device has to say to its running queue.
class QueueLoop {
 public:
  virtual ~QueueLoop() = default;
  // The chain is done; `written` bytes of its writable part are new. Now or later, on the worker's thread.
  virtual void complete(ring::Chain chain, uint32_t written) = 0;
  // The same for several in this order, in none of which anything was written.
  virtual void complete_unwritten(std::span<ring::Chain> chains) {
    for (ring::Chain& chain : chains) complete(std::move(chain), 0);
  }
  // The chain was not touched and stays available: it comes again when the ring goes on. Only in
  // Queue::drain(), the chain that was processed last first.
  virtual void give_back(ring::Chain chain) = 0;
  // The driver broke the rules of this device beyond what a status can say: the ring stops until it is set up
  // again. `chain` ends unanswered.
  virtual void fail(ring::Chain chain, Error error) = 0;
  // Processes what has become available since the last turn, as far as there is appetite for it, for a queue
  // that cannot wait for its next one. False: there is nothing, or this queue's own turn is going on.
  virtual bool take_available() { return false; }
  // From the next chain on that is used. Without it, and with zeros, a driver is called at the end of each
  // turn.
  virtual void moderate_calls(const CallModeration& moderation) { (void)moderation; }
  [[nodiscard]] virtual loop::Loop& worker() = 0;
  [[nodiscard]] virtual uint16_t index() const = 0;      // of the queue in the device
  [[nodiscard]] virtual uint32_t ring_size() const = 0;  // entries
  [[nodiscard]] virtual uint64_t features() const = 0;   // negotiated
  // GET_VRING_BASE_SKIP_DRAIN has come: no memory of the front-end is to be touched any more for what was
  // taken before, and nothing more begun for it. Such chains still end in complete(), which drops them.
  [[nodiscard]] virtual bool is_suspended() const { return false; }
  // False only for queues of which Model::runs_disabled() says so.
  [[nodiscard]] virtual bool enabled() const { return true; }
  // A legacy driver of the other byte order (SET_VRING_ENDIAN): request headers are big-endian too.
  [[nodiscard]] virtual bool big_endian() const = 0;
};

// A device's part of one running queue; made by Model::start_queue, used on the worker's thread only.
class Queue {
 public:
  virtual ~Queue() = default;
  // Ends in QueueLoop::complete or fail, at once or later. Must not block.
  virtual void process(ring::Chain chain) = 0;
  // For devices whose work on a chain is so short that a call for each would count: the same for several, in
  // this order, none of which may end in QueueLoop::fail. False: none was processed, they come one by one.
  virtual bool process_batch(std::span<ring::Chain> chains) { return (void)chains, false; }
  // All chains that are available now (or as many as fit in a turn) have been processed: submit what was
  // gathered. What take_available() has given counts in the queue's next turn.
  virtual void flush() {}
  // The ring is about to stop, or its memory to move: chains that wait for something that may never come (a
  // packet) end now, in QueueLoop::complete or give_back. More may follow if the ring goes on.
  virtual void drain() {}
  // How many more chains it has use for now. Others stay available and nobody waits for them: it is asked
  // again in the turn after one has completed, and when it calls QueueLoop::take_available().
  [[nodiscard]] virtual size_t appetite() const { return SIZE_MAX; }
  // Bytes at the beginning of a chain that are most often written as they are already, so that it compares
  // before it writes.
  [[nodiscard]] virtual size_t steady_bytes() const { return 0; }
  // Whether chains may be processed in another order than the driver's, as their memory comes (postcopy). Not
  // where drain() gives chains back.
  [[nodiscard]] virtual bool takes_any_order() const { return false; }
};

}  // namespace ringway::engine
