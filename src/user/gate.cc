#include "ringway/user/gate.h"

#include <unistd.h>

#include "ringway/base/notifier.h"

namespace ringway::user {

Result<std::shared_ptr<Gate>> Gate::make() {
  UniqueFd event = TRY(make_eventfd());
  return std::shared_ptr<Gate>(new Gate(std::move(event)));
}

void Gate::close() {
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

void Gate::open() {
  {
    const std::scoped_lock lock(mutex_);
    closed_ = false;
    uint64_t events = 0;
    [[maybe_unused]] const ssize_t got = ::read(event_.get(), &events, sizeof events);
  }
  changed_.notify_all();
}

bool Gate::wait_for(const std::function<size_t()>& expected, std::chrono::steady_clock::time_point deadline) {
  // Sessions also end, which nobody tells here: looked at again after a while.
  constexpr std::chrono::milliseconds look_again{1};
  std::unique_lock lock(mutex_);
  while (waiting_ < expected()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    changed_.wait_for(lock, look_again);
  }
  return true;
}

void Gate::pass() {
  std::unique_lock lock(mutex_);
  if (!closed_) return;
  ++waiting_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !closed_; });
  --waiting_;
}

}  // namespace ringway::user
