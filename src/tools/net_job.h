// NetJob: the frames of one pair of queues: sent, received, numbered and checked. Owned by the thread that
// drives it; only finished() may be asked by others. A turn takes what has come, shows the device the buffers
// again, and sends as much anew.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "ringway/tools/histogram.h"
#include "ringway/tools/job.h"
#include "ringway/tools/net_account.h"
#include "ringway/tools/net_driver.h"
#include "ringway/tools/net_frames.h"

namespace ringway::tools {

// The flows of a run, one for each transmitting queue. A flow may arrive at any queue: which one is the
// device's choice. Any thread.
class NetFlows {
 public:
  explicit NetFlows(const std::vector<FlowOptions>& flows);
  [[nodiscard]] uint16_t count() const { return static_cast<uint16_t>(flows_.size()); }
  [[nodiscard]] const Flow& flow(uint16_t number) const { return flows_[number]; }

  // Counters of one writer, or of many when a flow spreads over queues.
  void note_sent(uint16_t flow, uint64_t frames) { add(states_[flow].sent, frames); }
  void note_arrived(uint16_t flow, uint64_t frames) { add(states_[flow].arrived, frames); }
  [[nodiscard]] uint64_t sent(uint16_t flow) const { return get(states_[flow].sent); }
  [[nodiscard]] uint64_t arrived(uint16_t flow) const { return get(states_[flow].arrived); }
  [[nodiscard]] bool all_arrived() const;

 private:
  struct State {
    alignas(64) std::atomic<uint64_t> sent = 0;
    alignas(64) std::atomic<uint64_t> arrived = 0;
  };
  static void add(std::atomic<uint64_t>& to, uint64_t count) {
    to.fetch_add(count, std::memory_order_relaxed);
  }
  static uint64_t get(const std::atomic<uint64_t>& from) { return from.load(std::memory_order_relaxed); }

  std::vector<Flow> flows_;
  std::unique_ptr<State[]> states_;
};

// What was counted since it was cleared.
struct NetTally {
  uint64_t sent = 0;  // frames; bytes are without virtio headers
  uint64_t sent_bytes = 0;
  uint64_t received = 0;
  uint64_t received_bytes = 0;
  Histogram latency;  // nanoseconds
  uint64_t kicks = 0;
  uint64_t sleeps = 0;
  uint64_t turns = 0;       // in which something had come back
  int64_t nanoseconds = 0;  // the time that was counted

  void add(const NetTally& other);
};

struct NetWork {
  Transmitter* transmitter = nullptr;  // null: nothing is sent
  Receiver* receiver = nullptr;        // null: nothing is received
  Receiver* aside = nullptr;           // whose frames are taken and forgotten
  uint32_t window = 0;    // frames that may be sent and have not arrived; 0: nothing is expected to arrive
  bool numbered = false;  // each frame is written anew with its number; else all are written once
  bool checked = false;   // with `numbered`: frames that arrive are compared with what was sent
  bool timed = false;     // with `numbered` and a window of 1: how long each frame takes
};

class NetJob final : public Job {
 public:
  // Sends the flow `number`; `run` is what its frames say.
  NetJob(const NetWork& work, NetFlows& flows, uint16_t number, uint64_t run);

  void begin(Phase phase, int64_t now) override;
  void clear(int64_t now) override;
  void count(int64_t now) override;
  Result<bool> turn(bool stop) override;
  [[nodiscard]] bool at_rest(bool stop) const override;
  [[nodiscard]] bool prepare_to_sleep() override;
  void wake_up() override;
  [[nodiscard]] uint64_t in_flight() const override;
  [[nodiscard]] uint64_t finished() const override { return finished_.load(std::memory_order_relaxed); }

  // As count() has left it.
  [[nodiscard]] const NetTally& counted() const { return counted_; }
  // Of all phases; `sent` is of this flow, all else of what has come here.
  [[nodiscard]] NetAccount account() const;

 private:
  void write_all();
  Result<uint32_t> receive();
  void take(const Received& frame);
  void identify(const Received& frame);
  void check(const FrameTag& tag, std::span<const std::byte> frame);
  [[nodiscard]] uint16_t quick_flow(const Received& frame) const;
  uint32_t send();
  [[nodiscard]] uint32_t allowance() const;
  // Nothing has happened in this turn.
  void idle(bool stop);
  [[nodiscard]] uint64_t kicks() const;

  const NetWork work_;
  NetFlows& flows_;
  const uint16_t number_;
  const uint64_t run_;
  const uint32_t batch_;            // frames of a turn
  std::vector<uint32_t> lengths_;   // of what is in the transmitter's buffers, by token
  std::vector<std::byte> copy_;     // of a frame that is looked at
  std::vector<Arrivals> arrivals_;  // by flow
  std::vector<uint64_t> came_;      // frames of each flow in this turn
  uint64_t forgiven_ = 0;           // frames of ours that are not waited for any longer
  uint64_t next_ = 0;               // sequence number
  int64_t started_ = 0;             // when the timed frame was sent
  int64_t idle_since_ = 0;          // nanoseconds; 0: not
  bool settled_ = false;            // what has not come when everything was stopped will not come
  NetAccount account_;
  NetTally tally_;
  NetTally counted_;
  int64_t begin_ = 0;
  uint64_t kicks_before_ = 0;
  std::atomic<uint64_t> finished_ = 0;
};

}  // namespace ringway::tools
