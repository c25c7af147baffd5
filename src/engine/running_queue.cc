#include "ringway/engine/running_queue.h"

#include <cassert>
#include <span>

#include "ringway/base/log.h"

namespace ringway::engine {
namespace {

// Chains that one queue may take in a turn before others have theirs.
constexpr size_t budget = 128;
// How often an idle ring without notifications is looked at.
constexpr auto poll_interval = std::chrono::microseconds(500);

void notify(const std::shared_ptr<const Notifier>& fd, const std::function<void()>& in_band) {
  if (fd) {
    fd->signal();
  } else {
    in_band();
  }
}

}  // namespace

RunningQueue::RunningQueue(loop::Loop& worker, Model& model, ring::Ring ring, memory::View view, Setup setup)
    : worker_(worker),
      setup_(std::move(setup)),
      ring_(std::move(ring)),
      view_(std::move(view)),
      size_(std::visit([](const auto& format) { return format.size(); }, ring_)) {
  worker_.run([&] {
    memory::FaultGuard::work_on_this_thread();
    seen_faults_ = memory::FaultGuard::faults();
    queue_ = model.start_queue(*this);
    worker_.add(*this);
    unpark();
    watch_kick();
  });
}

RunningQueue::~RunningQueue() { assert(state_ == State::stopped); }

ring::RingBase RunningQueue::stop() {
  std::binary_semaphore done(0);
  worker_.run([&] {
    if (!is_over()) state_ = State::paused;
    drain(done);
  });
  done.acquire();
  ring::RingBase base;
  worker_.run([&] {
    state_ = State::stopped;
    queue_.reset();
    worker_.cancel(poll_timer_);
    worker_.unwatch(*this);
    worker_.remove(*this);
    worker_.forget(*this);
    base = std::visit([](auto& ring) { return ring.base(); }, ring_);
  });
  return base;
}

std::optional<ring::RingBase> RunningQueue::suspend() {
  const bool tracked = std::visit([](const auto& ring) { return ring.is_tracked(); }, ring_);
  if (!tracked) return std::nullopt;
  ring::RingBase base;
  worker_.run([&] {
    if (state_ != State::broken) state_ = State::paused;
    queue_->drain();
    publish();
    if (state_ != State::broken) state_ = State::suspended;
    worker_.unwatch(*this);
    base = std::visit([](auto& ring) { return ring.base(); }, ring_);
  });
  return base;
}

void RunningQueue::set_view(memory::View view, bool drain_first) {
  const auto swap = [&] {
    view_ = std::move(view);
    std::visit([&](auto& ring) { ring.set_view(view_); }, ring_);
    if (state_ == State::paused || state_ == State::waiting_for_iotlb) {
      state_ = State::running;
      worker_.wake(*this);
    }
  };
  if (!drain_first) return worker_.run(swap);
  std::binary_semaphore done(0);
  worker_.run([&] {
    if (state_ == State::running || state_ == State::waiting_for_iotlb) state_ = State::paused;
    drain(done);
  });
  done.acquire();
  worker_.run(swap);
}

void RunningQueue::set_kick(std::shared_ptr<const Signal> kick, bool must_poll) {
  worker_.run([&] {
    worker_.unwatch(*this);
    setup_.kick = std::move(kick);
    setup_.must_poll = must_poll;
    watch_kick();
    worker_.wake(*this);  // whatever the old fd had to say
  });
}

void RunningQueue::set_call(std::shared_ptr<const Notifier> call) {
  worker_.run([&] { setup_.call = std::move(call); });
}

void RunningQueue::set_err(std::shared_ptr<const Notifier> err) {
  worker_.run([&] { setup_.err = std::move(err); });
}

void RunningQueue::kick() {
  worker_.run([this] { worker_.wake(*this); });
}

void RunningQueue::complete(ring::Chain chain, uint32_t written) {
  if (state_ == State::suspended) [[unlikely]] {
    abandon(std::move(chain));
    return worker_.at_end_of_turn(*this);
  }
  std::visit([&](auto& ring) { ring.push_used(std::move(chain), written); }, ring_);
  unpublished_ = true;
  if (in_poll_) return;
  worker_.at_end_of_turn(*this);
  worker_.wake(*this);  // what has come back is likely to be followed by more
}

void RunningQueue::give_back(ring::Chain chain) {
  if (is_over()) return abandon(std::move(chain));
  std::visit([&](auto& ring) { ring.push_back(std::move(chain)); }, ring_);
}

void RunningQueue::fail(ring::Chain chain, Error error) {
  break_ring(error);
  abandon(std::move(chain));
  if (!in_poll_) worker_.at_end_of_turn(*this);
}

void RunningQueue::abandon(ring::Chain chain) {
  std::visit([&](auto& ring) { ring.abandon(std::move(chain)); }, ring_);
}

bool RunningQueue::poll() {
  if (state_ != State::running) return false;
  in_poll_ = true;
  const bool worked = drain_ring();
  in_poll_ = false;
  publish();
  if (drained_ != nullptr) on_drained();
  return worked;
}

bool RunningQueue::drain_ring() {
  if (const uint64_t faults = memory::FaultGuard::faults(); faults != seen_faults_) [[unlikely]] {
    seen_faults_ = faults;
    if (memory_is_broken()) {
      break_ring(Error{.fault = Fault::violation, .what = "the front-end took away its memory"});
      return true;
    }
  }
  const size_t count = std::visit([this](auto& ring) { return process_available(ring); }, ring_);
  if (count > 0) queue_->flush();
  return count > 0;
}

// Chains are popped some at a time before the first is looked at: what pop() prefetches has arrived by then.
template <class RingType>
size_t RunningQueue::process_available(RingType& ring) {
  size_t total = 0;
  while (total < budget && state_ == State::running) {
    const size_t count = pop_batch(ring, chains_);
    for (size_t i = 0; i < count; ++i) process(std::move(chains_[i]));
    total += count;
    if (unpublished_) show_used(ring);
    if (count < chains_.size()) break;
  }
  return total;
}

template <class RingType>
size_t RunningQueue::pop_batch(RingType& ring, std::span<ring::Chain> chains) {
  size_t count = 0;
  while (count < chains.size()) {
    auto popped = ring.pop();
    if (!popped) [[unlikely]] {
      break_ring(popped.error());
      break;
    }
    if (!*popped) {
      if (const auto& missing = ring.missing()) [[unlikely]]
        on_iotlb_miss(*missing);
      break;
    }
    chains[count++] = *std::move(popped);
  }
  return count;
}

void RunningQueue::process(ring::Chain chain) {
  if (is_over()) [[unlikely]]
    return abandon(std::move(chain));
  queue_->process(std::move(chain));
}

void RunningQueue::on_iotlb_miss(const memory::Translation& missing) {
  state_ = State::waiting_for_iotlb;
  setup_.events.iotlb_miss(missing);
}

bool RunningQueue::park() {
  if (state_ != State::running) return true;
  if (setup_.must_poll) {
    poll_again_later();
    return true;
  }
  if (!std::visit([](auto& ring) { return ring.enable_kicks(); }, ring_)) return true;
  unpark();
  return false;
}

void RunningQueue::unpark() {
  // A kick: what the front-end could not tell us before, it may now.
  if (state_ == State::waiting_for_iotlb) state_ = State::running;
  if (state_ == State::running) std::visit([](auto& ring) { ring.disable_kicks(); }, ring_);
}

void RunningQueue::poll_again_later() {
  worker_.cancel(poll_timer_);
  poll_timer_ = worker_.after(poll_interval, [this] { worker_.wake(*this); });
}

void RunningQueue::end_of_turn() {
  publish();
  if (drained_ != nullptr) on_drained();
}

template <class RingType>
void RunningQueue::show_used(RingType& ring) {
  unpublished_ = false;
  if (!is_over() && ring.publish()) call_wanted_ = true;
}

void RunningQueue::publish() {
  if (unpublished_) std::visit([this](auto& ring) { show_used(ring); }, ring_);
  if (!std::exchange(call_wanted_, false)) return;
  notify(setup_.call, setup_.events.in_band_call);
}

void RunningQueue::break_ring(const Error& error) {
  if (is_over()) return;
  log::warning("queue {} is broken: {}", setup_.index, error.to_string());
  publish();
  state_ = State::broken;
  worker_.unwatch(*this);
  notify(setup_.err, setup_.events.in_band_err);
  setup_.events.broke();
}

void RunningQueue::watch_kick() {
  if (!setup_.kick) return;
  if (auto watched = worker_.watch(*this, *setup_.kick); !watched) break_ring(watched.error());
}

bool RunningQueue::memory_is_broken() const {
  return view_.map().broken() || std::visit([](const auto& ring) { return ring.memory_is_broken(); }, ring_);
}

uint32_t RunningQueue::in_flight() const {
  return std::visit([](const auto& ring) { return ring.in_flight(); }, ring_);
}

void RunningQueue::drain(std::binary_semaphore& done) {
  queue_->drain();
  drained_ = &done;
  on_drained();
}

void RunningQueue::on_drained() {
  if (in_flight() > 0) return;
  publish();
  std::exchange(drained_, nullptr)->release();
}

}  // namespace ringway::engine
