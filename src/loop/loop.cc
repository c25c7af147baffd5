#include "ringway/loop/loop.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <future>
#include <semaphore>
#include <system_error>
#include <thread>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/loop/mailbox.h"
#include "ringway/loop/poller.h"
#include "ringway/loop/signals.h"
#include "ringway/loop/sources.h"
#include "ringway/loop/timers.h"

namespace ringway::loop {
namespace {

constexpr unsigned tasks_per_turn = 64;
// While sources keep the loop awake, the clock is read for timers only once in so many turns.
constexpr unsigned turns_between_timers = 16;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Result<> pin(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return refused("no such CPU", static_cast<uint64_t>(cpu));
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  const int error = ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
  if (error == EINVAL)
    return refused("no such CPU, or not one that this process may use", static_cast<uint64_t>(cpu));
  if (error != 0) return os_failure("cannot pin a worker to its CPU", error);
  return {};
}

}  // namespace

class Loop::Impl final : Poller::Client {
 public:
  Impl(Options options, std::shared_ptr<Doorbell> doorbell)
      : options_(std::move(options)),
        doorbell_(std::move(doorbell)),
        mailbox_(doorbell_),
        sources_(options_.polling) {}
  ~Impl();
  Result<> start();

  void thread_main(std::promise<Result<>> started);
  Result<> set_up();
  void turn();
  void wait_a_little();
  void nap();
  bool fire_timers();
  void run_deferred();
  [[nodiscard]] bool may_nap() const;
  [[nodiscard]] bool finished() const;
  void signalled(SourceState& source) override { sources_.signalled(source); }

  const Options options_;
  const std::shared_ptr<Doorbell> doorbell_;
  Mailbox mailbox_;
  Sources sources_;
  Timers timers_;
  std::vector<Deferred*> deferred_;  // null: forgotten
  std::unique_ptr<Poller> poller_;   // lives on the thread
  bool uses_io_uring_ = false;
  bool stopping_ = false;
  unsigned turns_ = 0;
  std::thread thread_;
};

Result<> Loop::Impl::start() {
  std::promise<Result<>> started;
  std::future<Result<>> outcome = started.get_future();
  const SignalsBlocked blocked;
  try {
    thread_ =
        std::thread([this, promise = std::move(started)]() mutable { thread_main(std::move(promise)); });
  } catch (const std::system_error& error) {
    return os_failure("cannot start a worker thread", error.code().value());
  }
  return outcome.get();
}

Loop::Impl::~Impl() {
  if (!thread_.joinable()) return;
  mailbox_.post([this] { stopping_ = true; });
  thread_.join();
}

void Loop::Impl::thread_main(std::promise<Result<>> started) {
  const Result<> outcome = set_up();
  stopping_ = !outcome;
  started.set_value(outcome);
  if (!outcome) return;
  while (!finished()) turn();
  assert(sources_.empty() && timers_.empty());
  poller_.reset();
}

Result<> Loop::Impl::set_up() {
  const std::string name = "rw-" + options_.name;
  ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
  if (options_.cpu) TRY(pin(*options_.cpu));
  if (options_.use_io_uring) {
    Result<std::unique_ptr<Poller>> poller = make_uring_poller(*this, doorbell_);
    if (poller) {
      poller_ = *std::move(poller);
      uses_io_uring_ = true;
      return {};
    }
    log::info("{}; using epoll and threads instead", poller.error().to_string());
  }
  poller_ = TRY(make_epoll_poller(*this, doorbell_));
  return {};
}

void Loop::Impl::turn() {
  bool worked = poller_->reap();
  worked = sources_.turn() || worked;
  worked = mailbox_.run(tasks_per_turn) || worked;
  worked = fire_timers() || worked;
  run_deferred();
  if (may_nap()) {
    nap();
    return;
  }
  poller_->flush();
  if (!worked) wait_a_little();
}

// What is waited for may be done by a thread that needs this very CPU.
void Loop::Impl::wait_a_little() { poller_->in_threads() > 0 ? std::this_thread::yield() : relax(); }

bool Loop::Impl::may_nap() const {
  return sources_.all_parked() && deferred_.empty() && mailbox_.empty() && !finished();
}

void Loop::Impl::nap() {
  doorbell_->lie_down();
  const bool found = !mailbox_.empty() || poller_->pending();
  if (found) {
    poller_->flush();
  } else {
    poller_->sleep(timers_.next());
  }
  doorbell_->get_up();
}

bool Loop::Impl::finished() const {
  return stopping_ && mailbox_.empty() && poller_->in_flight() == 0 && deferred_.empty();
}

bool Loop::Impl::fire_timers() {
  if (timers_.empty()) return false;
  if (!sources_.all_parked() && ++turns_ % turns_between_timers != 0) return false;
  return timers_.fire(Clock::now());
}

void Loop::Impl::run_deferred() {
  // What is asked for meanwhile belongs to the next turn.
  for (size_t i = 0, count = deferred_.size(); i < count; ++i) {
    Deferred* deferred = deferred_[i];
    if (deferred == nullptr) continue;
    deferred_[i] = nullptr;
    deferred->queued_ = false;
    deferred->end_of_turn();
  }
  std::erase(deferred_, nullptr);
}

Loop::Loop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Loop::~Loop() = default;

Result<std::unique_ptr<Loop>> Loop::start(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options), TRY(Doorbell::make()));
  TRY(impl->start());
  return std::unique_ptr<Loop>(new Loop(std::move(impl)));
}

void Loop::post(Task task) { impl_->mailbox_.post(std::move(task)); }

void Loop::run(Task task) {
  assert(!is_current());
  std::binary_semaphore done(0);
  post([&] {
    task();
    done.release();
  });
  done.acquire();
}

bool Loop::is_current() const { return impl_->thread_.get_id() == std::this_thread::get_id(); }
bool Loop::uses_io_uring() const { return impl_->uses_io_uring_; }

void Loop::add(Source& source) {
  assert(is_current() && source.state_ == nullptr);
  source.state_ = &impl_->sources_.add(source);
}

void Loop::remove(Source& source) {
  assert(is_current() && source.state_ != nullptr);
  unwatch(source);
  unwatch_fd(source);
  impl_->sources_.remove(*std::exchange(source.state_, nullptr));
}

void Loop::wake(Source& source) {
  assert(source.state_ != nullptr);
  impl_->sources_.wake(*source.state_);
}

Result<> Loop::watch(Source& source, const Signal& signal) {
  assert(is_current() && source.state_ != nullptr);
  unwatch(source);
  source.state_->watch = TRY(impl_->poller_->watch(signal, *source.state_));
  return {};
}

void Loop::unwatch(Source& source) {
  assert(is_current() && source.state_ != nullptr);
  if (Watch* watch = std::exchange(source.state_->watch, nullptr)) impl_->poller_->unwatch(watch);
}

Result<> Loop::wake_when_ready(Source& source, int fd, short events) {
  assert(is_current() && source.state_ != nullptr);
  Watch*& watch = source.state_->fd_watch;
  if (watch != nullptr && watch->fd == fd && watch->events == events) return impl_->poller_->rearm(*watch);
  unwatch_fd(source);
  watch = TRY(impl_->poller_->watch_once(fd, events, *source.state_));
  return {};
}

void Loop::unwatch_fd(Source& source) {
  assert(is_current() && source.state_ != nullptr);
  if (Watch* watch = std::exchange(source.state_->fd_watch, nullptr)) impl_->poller_->unwatch(watch);
}

void Loop::submit(FileRequest& request) { impl_->poller_->submit(request); }

void Loop::at_end_of_turn(Deferred& deferred) {
  if (std::exchange(deferred.queued_, true)) return;
  impl_->deferred_.push_back(&deferred);
}

void Loop::forget(Deferred& deferred) {
  if (!std::exchange(deferred.queued_, false)) return;
  *std::ranges::find(impl_->deferred_, &deferred) = nullptr;
}

uint64_t Loop::after(Clock::duration delay, Task task) {
  assert(is_current());
  return impl_->timers_.add(Clock::now() + delay, std::move(task));
}

void Loop::cancel(uint64_t timer) { impl_->timers_.cancel(timer); }

}  // namespace ringway::loop
