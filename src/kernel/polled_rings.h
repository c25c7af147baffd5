// PolledRings: rings whose driver does not kick. The kernel does not poll rings, so each is kicked from here,
// again and again, by a thread that is there while such a ring is. vhost-user "VHOST_USER_SET_VRING_KICK".
// Thread rule: one call at a time, from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>

#include "ringway/base/notifier.h"

namespace ringway::kernel {

class PolledRings {
 public:
  static constexpr std::chrono::milliseconds interval{1};

  PolledRings() = default;
  ~PolledRings() { clear(); }
  PolledRings(const PolledRings&) = delete;
  PolledRings& operator=(const PolledRings&) = delete;

  // The eventfd that is signalled for it from now on.
  Result<UniqueFd> add(uint32_t ring);
  void remove(uint32_t ring);  // nothing, if it is not there
  void clear();

 private:
  void run(const std::stop_token& stop);
  std::mutex mutex_;
  std::map<uint32_t, Notifier> kicks_;  // with the lock
  std::condition_variable_any ended_;
  std::jthread thread_;
};

}  // namespace ringway::kernel
