// Interface: what the kernel says of a network interface of this machine, and LinkWatch, which tells that
// something has changed. Any thread; a LinkWatch belongs to the thread of its loop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/loop/loop.h"

namespace ringway::port {

struct Interface {
  unsigned index = 0;
  uint32_t mtu = 0;         // bytes
  uint32_t queues = 1;      // pairs of them
  uint32_t speed_mbps = 0;  // 0: unknown
  bool is_up = false;

  // Refused if there is none of this name.
  static Result<Interface> find(const std::string& name);
};

// An interface receives what is for others too as long as what is returned is open.
Result<UniqueFd> make_promiscuous(unsigned index);

// Calls back after interfaces of this network namespace have come, gone or changed (RTNLGRP_LINK); perhaps
// once for many changes, and for changes of others.
class LinkWatch final : private loop::Source {
 public:
  static Result<UniqueFd> open();
  // `fd`: of open(); it may outlive this.
  LinkWatch(loop::Loop& loop, int fd, std::function<void()> changed);
  ~LinkWatch() override { loop_.remove(*this); }

 private:
  bool poll() override;
  bool park() override;
  void unpark() override { told_ = true; }

  loop::Loop& loop_;
  const int fd_;
  const std::function<void()> changed_;
  bool told_ = true;    // that there are messages
  unsigned turns_ = 0;  // of a loop that never parks anything
};

}  // namespace ringway::port
