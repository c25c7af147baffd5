// Notices: what the kernel has to say by itself, told to a front-end: IOTLB misses, changes of the
// configuration. A thread of its own from start to end, since a front-end may take its time. Misses that are
// found otherwise are told there as well.
#pragma once

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/kernel/iotlb_channel.h"
#include "ringway/vhost/handler.h"

namespace ringway::kernel {

class Notices {
 public:
  struct Sources {
    Ioctls* misses = nullptr;        // null: the device has no IOTLB
    IotlbChannel* iotlb = nullptr;   // of the same file
    const Signal* config = nullptr;  // null: no changes are told
  };
  // What `sources` points at outlives it.
  static Result<std::unique_ptr<Notices>> start(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end);
  ~Notices();  // waits for the call that is under way
  // Any thread; returns at once.
  void tell(const vhost::IotlbMessage& miss);
  Notices(const Notices&) = delete;
  Notices& operator=(const Notices&) = delete;

 private:
  Notices(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end, UniqueFd wake);
  void run();
  void wake() const;
  bool take_waiting();  // false: the end
  void pass_on(const vhost::IotlbMessage& miss);

  const Sources sources_;
  const std::shared_ptr<vhost::FrontEnd> front_end_;
  const UniqueFd wake_;
  std::mutex mutex_;  // guards what is below
  std::vector<vhost::IotlbMessage> waiting_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace ringway::kernel
