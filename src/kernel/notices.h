// Notices: what the kernel has to say by itself, told to a front-end: IOTLB misses, changes of the
// configuration. A thread of its own from start to end, since a front-end may take its time.
#pragma once

#include <memory>
#include <thread>

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
  Notices(const Notices&) = delete;
  Notices& operator=(const Notices&) = delete;

 private:
  Notices(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end, UniqueFd stop);
  void run();
  void tell_misses();

  const Sources sources_;
  const std::shared_ptr<vhost::FrontEnd> front_end_;
  const UniqueFd stop_;
  std::thread thread_;
};

}  // namespace ringway::kernel
