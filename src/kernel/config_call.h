// ConfigCall: the front-end of a device behind a vhost-vdpa file: tells that the configuration has changed by
// the eventfd that VDPA_SET_CONFIG_CALL names. Any thread.
#pragma once

#include <mutex>

#include "ringway/base/notifier.h"
#include "ringway/vhost/handler.h"

namespace ringway::kernel {

class ConfigCall final : public vhost::FrontEnd {
 public:
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override {
    if (!std::holds_alternative<vhost::ConfigChange>(request))
      return refused("vhost-vdpa has no such message");
    const std::scoped_lock lock(mutex_);
    if (call_) call_.signal();
    return vhost::FrontEndReply(vhost::Done{});
  }
  // No notifier: nobody is told.
  void set(Notifier call) {
    const std::scoped_lock lock(mutex_);
    call_ = std::move(call);
  }

 private:
  std::mutex mutex_;
  Notifier call_;
};

}  // namespace ringway::kernel
