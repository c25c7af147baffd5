// RunningQueue: a started ring with its device's Queue, polled by a worker's loop.
// Thread rule: made and told by the control thread through the worker's loop (start, stop, setters);
// everything else happens on the worker's thread.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <semaphore>
#include <span>

#include "ringway/base/notifier.h"
#include "ringway/engine/arrivals.h"
#include "ringway/engine/model.h"
#include "ringway/engine/page_fetcher.h"
#include "ringway/engine/queue_loop.h"
#include "ringway/loop/loop.h"
#include "ringway/ring/ring.h"

namespace ringway::engine {

class RunningQueue final : public QueueLoop, private loop::Source, private loop::Deferred {
 public:
  // What the queue tells its device; called on the worker's thread, must not wait.
  struct Events {
    std::function<void(const memory::Translation&)> iotlb_miss;
    std::function<void()> in_band_call;  // when there is no call fd
    std::function<void()> in_band_err;   // when there is no err fd
    std::function<void()> broke;         // once
  };
  struct Setup {
    uint16_t index = 0;
    uint64_t features = 0;
    bool big_endian = false;
    bool enabled = true;
    bool must_poll = false;                // no notification will ever come
    bool stands_still = false;             // until go_on()
    std::shared_ptr<const Signal> kick;    // none: in-band, or must_poll
    std::shared_ptr<const Notifier> call;  // may be none
    std::shared_ptr<const Notifier> err;   // may be none
    std::unique_ptr<ring::RingLog> log;    // may be none
    std::shared_ptr<PageFetcher> fetcher;  // postcopy: memory is fetched before it is touched
    Events events;
  };

  // Control thread. The queue runs when the constructor returns.
  RunningQueue(loop::Loop& worker, Model& model, ring::Ring ring, memory::View view, Setup setup);
  // Control thread. The queue must have been stopped.
  ~RunningQueue() override;

  // Control thread. Takes nothing new, waits until all that was taken is used, and says where the ring would
  // continue.
  ring::RingBase stop();
  // Control thread. Takes nothing new, and from here on leaves the ring alone: what was taken is not waited
  // for, stays in the ring's in-flight area, and what comes of it is dropped. Nothing, and the queue goes on,
  // if the ring has no such area. stop() must follow, which waits.
  std::optional<ring::RingBase> suspend();
  // Control thread. Later chains are translated through `view`; with `drain`, returns when no chain uses the
  // old one.
  void set_view(memory::View view, bool drain);
  // Control thread. As stop(), but the ring stays here: from stand_still() to go_on() nothing new is taken
  // and the kick fd is not looked at, so that another process may serve the ring meanwhile.
  void stand_still();
  // False: something is still in flight at `deadline`.
  bool stands_still(std::chrono::steady_clock::time_point deadline);
  [[nodiscard]] ring::RingBase base() const;  // after stands_still()
  void go_on();
  // Control thread. What is written from here on is logged so, or is not (none). Where nothing was logged
  // before it waits until all that was taken is used, whose writes could not be logged any more.
  Result<> set_log(std::optional<ring::Logging> logging);
  // Control thread. All memory is here: nothing is fetched any more.
  void end_postcopy(memory::View view);
  void set_kick(std::shared_ptr<const Signal> kick, bool must_poll);
  void set_call(std::shared_ptr<const Notifier> call);
  void set_err(std::shared_ptr<const Notifier> err);
  // Any thread: an in-band kick.
  void kick();

  // QueueLoop, worker's thread.
  void complete(ring::Chain chain, uint32_t written) override;
  void complete_unwritten(std::span<ring::Chain> chains) override;
  void give_back(ring::Chain chain) override;
  void fail(ring::Chain chain, Error error) override;
  bool take_available() override;
  void moderate_calls(const CallModeration& moderation) override;
  [[nodiscard]] loop::Loop& worker() override { return worker_; }
  [[nodiscard]] uint16_t index() const override { return setup_.index; }
  [[nodiscard]] uint32_t ring_size() const override { return size_; }
  [[nodiscard]] uint64_t features() const override { return setup_.features; }
  [[nodiscard]] bool big_endian() const override { return setup_.big_endian; }
  [[nodiscard]] bool enabled() const override { return setup_.enabled; }
  [[nodiscard]] bool is_suspended() const override { return state_ == State::suspended; }

 private:
  enum class State : uint8_t {
    running,
    waiting_for_iotlb,
    waiting_for_pages,
    paused,
    suspended,
    broken,
    stopped
  };

  bool poll() override;
  bool park() override;
  void unpark() override;
  void end_of_turn() override;

  bool drain_ring();
  template <class RingType>
  size_t process_available(RingType& ring);
  template <class RingType>
  size_t pop_batch(RingType& ring, std::span<ring::Chain> chains);
  void process(std::span<ring::Chain> chains);
  void process(ring::Chain chain);
  void completed(size_t chains);
  void push_done();
  void fetch(ring::Chain chain);
  void on_arrival(uint16_t index);
  void fetch_table(const memory::Translation& missing);
  void on_table_here();
  void abandon(ring::Chain chain);
  template <class RingType>
  void show_used(RingType& ring);
  void break_ring(const Error& error);
  void on_missing(const memory::Translation& missing);
  void publish();
  [[nodiscard]] bool holds_call();
  void call_later(std::chrono::nanoseconds delay);
  void call();
  void watch_kick();
  void poll_again_later();
  [[nodiscard]] uint32_t in_flight() const;
  [[nodiscard]] bool is_over() const { return state_ == State::broken || is_suspended(); }
  [[nodiscard]] bool memory_is_broken() const;
  [[nodiscard]] bool waits_for_memory() const {
    return state_ == State::waiting_for_iotlb || state_ == State::waiting_for_pages;
  }
  void on_drained();
  void drain(std::binary_semaphore& done);
  template <class Change>
  void between_chains(bool drain_first, Change&& change);

  loop::Loop& worker_;
  Setup setup_;
  ring::Ring ring_;
  memory::View view_;
  const uint32_t size_;
  bool logs_;  // control thread's
  std::unique_ptr<Queue> queue_;
  std::optional<Arrivals> arrivals_;    // once there was a fetcher
  uint32_t fetches_ = 0;                // under way
  std::array<ring::Chain, 32> chains_;  // popped before the first of them is processed, shown together
  // Completed, and to be pushed together.
  static constexpr size_t most_done = 32;
  std::array<ring::Chain, most_done> done_;
  std::array<uint32_t, most_done> written_{};  // into them
  size_t done_count_ = 0;
  State state_ = State::running;
  bool in_poll_ = false;
  bool unpublished_ = false;
  bool unflushed_ = false;  // chains were processed between polls
  bool call_wanted_ = false;
  CallModeration moderation_;
  uint32_t uncalled_ = 0;      // chains used since the last call
  bool call_is_held_ = false;  // until call_due_
  loop::Loop::Clock::time_point call_due_;
  uint64_t call_timer_ = 0;
  uint64_t seen_faults_ = 0;
  uint64_t poll_timer_ = 0;
  std::binary_semaphore* drained_ = nullptr;  // somebody waits for in_flight() == 0
  std::binary_semaphore still_{0};
  bool stood_still_ = false;  // control thread's
};

}  // namespace ringway::engine
