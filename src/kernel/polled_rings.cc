#include "ringway/kernel/polled_rings.h"

#include <system_error>
#include <utility>

namespace ringway::kernel {

Result<UniqueFd> PolledRings::add(uint32_t ring) {
  UniqueFd fd = TRY(make_eventfd());
  Notifier kick = TRY(Notifier::adopt(TRY(fd.duplicate())));
  {
    const std::scoped_lock lock(mutex_);
    kicks_.insert_or_assign(ring, std::move(kick));
  }
  if (thread_.joinable()) return fd;
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  } catch (const std::system_error& error) {
    remove(ring);
    return os_failure("cannot start a thread that polls", error.code().value());
  }
  return fd;
}

void PolledRings::remove(uint32_t ring) {
  {
    const std::scoped_lock lock(mutex_);
    kicks_.erase(ring);
    if (!kicks_.empty()) return;
  }
  clear();
}

void PolledRings::clear() {
  thread_ = std::jthread();  // asks the one that is there to stop, and waits for it
  kicks_.clear();
}

void PolledRings::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    for (const auto& [ring, kick] : kicks_) kick.signal();
    ended_.wait_for(lock, stop, interval, [] { return false; });
  }
}

}  // namespace ringway::kernel
