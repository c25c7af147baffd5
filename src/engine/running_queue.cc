#include "ringway/engine/running_queue.h"

#include <algorithm>
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
      size_(std::visit([](const auto& format) { return format.size(); }, ring_)),
      logs_(setup_.log != nullptr) {
  if (logs_) std::visit([this](auto& format) { format.set_log(std::move(setup_.log)); }, ring_);
  worker_.run([&] {
    memory::FaultGuard::work_on_this_thread();
    seen_faults_ = memory::FaultGuard::faults();
    queue_ = model.start_queue(*this);
    std::visit([this](auto& format) { format.set_steady(queue_->steady_bytes()); }, ring_);
    if (setup_.fetcher) arrivals_.emplace(size_, queue_->takes_any_order());
    worker_.add(*this);
    if (setup_.stands_still) {
      state_ = State::paused;
      return;
    }
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
    worker_.cancel(call_timer_);
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
    if (fetches_ == 0) queue_->drain();
    publish();
    call();
    if (state_ != State::broken) state_ = State::suspended;
    worker_.unwatch(*this);
    base = std::visit([](auto& ring) { return ring.base(); }, ring_);
  });
  return base;
}

void RunningQueue::set_view(memory::View view, bool drain_first) {
  between_chains(drain_first, [&] {
    view_ = std::move(view);
    std::visit([&](auto& ring) { ring.set_view(view_); }, ring_);
  });
}

Result<> RunningQueue::set_log(std::optional<ring::Logging> logging) {
  const bool logged = std::exchange(logs_, logging.has_value());
  if (!logging) {
    worker_.run([&] { std::visit([](auto& ring) { ring.set_log(nullptr); }, ring_); });
  } else if (logged) {
    worker_.run([&] { std::visit([&](auto& ring) { ring.change_log(*std::move(logging)); }, ring_); });
  } else {
    logs_ = false;
    auto log = TRY(ring::RingLog::create(size_, *std::move(logging)));
    between_chains(true, [&] { std::visit([&](auto& ring) { ring.set_log(std::move(log)); }, ring_); });
    logs_ = true;
  }
  return {};
}

// Changes what chains depend on; with `drain_first` while none is in flight.
template <class Change>
void RunningQueue::between_chains(bool drain_first, Change&& change) {
  const auto change_and_go_on = [&] {
    change();
    if (state_ == State::paused || waits_for_memory()) {
      state_ = State::running;
      worker_.wake(*this);
    }
  };
  if (!drain_first) return worker_.run(change_and_go_on);
  std::binary_semaphore done(0);
  worker_.run([&] {
    if (state_ == State::running || waits_for_memory()) state_ = State::paused;
    drain(done);
  });
  done.acquire();
  worker_.run(change_and_go_on);
}

void RunningQueue::end_postcopy(memory::View view) {
  between_chains(false, [&] {
    setup_.fetcher.reset();
    view_ = std::move(view);
    std::visit([&](auto& ring) { ring.set_view(view_); }, ring_);
  });
}

void RunningQueue::stand_still() {
  stood_still_ = false;
  worker_.post([this] {
    if (!is_over()) state_ = State::paused;
    worker_.unwatch(*this);
    drain(still_);
  });
}

bool RunningQueue::stands_still(std::chrono::steady_clock::time_point deadline) {
  stood_still_ = stood_still_ || still_.try_acquire_until(deadline);
  return stood_still_;
}

ring::RingBase RunningQueue::base() const {
  return std::visit([](const auto& ring) { return ring.base(); }, ring_);
}

void RunningQueue::go_on() {
  worker_.run([this] {
    drained_ = nullptr;
    if (is_over()) return;
    state_ = State::running;
    unpark();
    watch_kick();
    worker_.wake(*this);
  });
  if (!stood_still_) stood_still_ = still_.try_acquire();
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
  if (is_suspended()) [[unlikely]] {
    abandon(std::move(chain));
    return worker_.at_end_of_turn(*this);
  }
  done_[done_count_] = std::move(chain);
  written_[done_count_++] = written;
  if (done_count_ == most_done) push_done();
  completed(1);
}

void RunningQueue::complete_unwritten(std::span<ring::Chain> chains) {
  if (is_suspended()) [[unlikely]]
    return QueueLoop::complete_unwritten(chains);
  push_done();
  std::visit([&](auto& ring) { ring.push_used(chains); }, ring_);
  completed(chains.size());
}

void RunningQueue::push_done() {
  if (done_count_ == 0) return;
  const auto push_all = [this](auto& ring) {
    for (size_t i = 0; i < done_count_; ++i) ring.push_used(std::move(done_[i]), written_[i]);
  };
  std::visit(push_all, ring_);
  done_count_ = 0;
}

// Something is to be published.
void RunningQueue::completed(size_t chains) {
  uncalled_ += static_cast<uint32_t>(chains);
  if (std::exchange(unpublished_, true) || in_poll_) return;
  worker_.at_end_of_turn(*this);
  worker_.wake(*this);  // what has come back is likely to be followed by more
}

void RunningQueue::give_back(ring::Chain chain) {
  if (is_over()) return abandon(std::move(chain));
  push_done();
  std::visit([&](auto& ring) { ring.push_back(std::move(chain)); }, ring_);
}

void RunningQueue::fail(ring::Chain chain, Error error) {
  break_ring(error);
  abandon(std::move(chain));
  if (!in_poll_) worker_.at_end_of_turn(*this);
}

bool RunningQueue::take_available() {
  if (in_poll_ || state_ != State::running) return false;
  const bool took = std::visit([this](auto& ring) { return process_available(ring); }, ring_) > 0;
  unflushed_ |= took;
  if (state_ == State::running) worker_.wake(*this);  // parked without appetite it waits for no kick
  return took;
}

void RunningQueue::abandon(ring::Chain chain) {
  push_done();
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
  if (count > 0 || std::exchange(unflushed_, false)) queue_->flush();
  return count > 0;
}

// Chains are popped some at a time before the first is looked at: what pop() prefetches has arrived by then.
template <class RingType>
size_t RunningQueue::process_available(RingType& ring) {
  size_t total = 0;
  while (total < budget && state_ == State::running) {
    const size_t most = std::min(chains_.size(), queue_->appetite());
    if (most == 0) break;
    const size_t count = pop_batch(ring, std::span(chains_).first(most));
    process(std::span(chains_).first(count));
    total += count;
    if (unpublished_) show_used(ring);
    if (count < most) break;
  }
  return total;
}

template <class RingType>
size_t RunningQueue::pop_batch(RingType& ring, std::span<ring::Chain> chains) {
  size_t count = 0;
  while (count < chains.size()) {
    const auto popped = ring.pop(chains.subspan(count));
    if (!popped) [[unlikely]] {
      break_ring(popped.error());
      break;
    }
    if (*popped == 0) {
      if (const auto& missing = ring.missing()) [[unlikely]]
        on_missing(*missing);
      break;
    }
    count += *popped;
  }
  return count;
}

void RunningQueue::process(std::span<ring::Chain> chains) {
  if (!is_over() && !arrivals_ && queue_->process_batch(chains)) return;
  for (ring::Chain& chain : chains) process(std::move(chain));
}

void RunningQueue::process(ring::Chain chain) {
  if (is_over()) [[unlikely]]
    return abandon(std::move(chain));
  if (arrivals_) [[unlikely]]
    return fetch(std::move(chain));
  queue_->process(std::move(chain));
}

void RunningQueue::on_missing(const memory::Translation& missing) {
  if (missing.outcome == memory::Translation::absent) return fetch_table(missing);
  state_ = State::waiting_for_iotlb;
  setup_.events.iotlb_miss(missing);
}

bool RunningQueue::park() {
  if (state_ != State::running) return true;
  if (setup_.must_poll) {
    poll_again_later();
    return true;
  }
  if (queue_->appetite() == 0) return true;
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
  push_done();
  unpublished_ = false;
  if (!is_over() && ring.publish()) call_wanted_ = true;
}

void RunningQueue::publish() {
  if (unpublished_) std::visit([this](auto& ring) { show_used(ring); }, ring_);
  if (!call_wanted_) {
    uncalled_ = 0;
  } else if (!holds_call()) {
    call();
  }
}

// What is held already is called at the old time.
void RunningQueue::moderate_calls(const CallModeration& moderation) {
  moderation_ = {.chains = std::min(moderation.chains, size_), .delay = moderation.delay};
}

bool RunningQueue::holds_call() {
  if (uncalled_ >= moderation_.chains || moderation_.delay.count() == 0) [[likely]]
    return false;
  if (!std::exchange(call_is_held_, true)) {
    call_due_ = loop::Loop::Clock::now() + moderation_.delay;
    if (call_timer_ == 0) call_later(moderation_.delay);
  }
  return true;
}

// One timer runs, however many calls there are meanwhile: it looks at what is due when its time has come.
void RunningQueue::call_later(std::chrono::nanoseconds delay) {
  call_timer_ = worker_.after(delay, [this] {
    call_timer_ = 0;
    if (!call_is_held_) return;
    const auto now = loop::Loop::Clock::now();
    now < call_due_ ? call_later(call_due_ - now) : call();
  });
}

void RunningQueue::call() {
  uncalled_ = 0;
  call_is_held_ = false;
  if (!std::exchange(call_wanted_, false)) return;
  notify(setup_.call, setup_.events.in_band_call);
}

void RunningQueue::break_ring(const Error& error) {
  if (is_over()) return;
  log::warning("queue {} is broken: {}", setup_.index, error.to_string());
  publish();
  call();
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
  drained_ = &done;
  if (fetches_ == 0) queue_->drain();
  on_drained();
}

void RunningQueue::on_drained() {
  push_done();
  if (in_flight() > 0 || fetches_ > 0) return;
  publish();
  call();
  std::exchange(drained_, nullptr)->release();
}

}  // namespace ringway::engine
