// Termination: SIGTERM, SIGINT and SIGHUP, and SIGUSR2 where it means something, to be waited for instead of
// being interrupted. Made before the first thread starts, for the signals are blocked; kept until the program
// ends. Main thread.
#pragma once

#include <sys/signalfd.h>

#include <functional>
#include <initializer_list>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class Termination {
 public:
  // `more`: none, or SIGUSR2; else that ends the program, as it does elsewhere.
  static Result<Termination> make(std::initializer_list<int> more = {});
  using OnUpgrade = std::function<void(const signalfd_siginfo&)>;
  // For SIGTERM or SIGINT. `on_hangup` is called at each SIGHUP, `on_upgrade` at each SIGUSR2.
  void wait(
      const std::function<void()>& on_hangup = [] {}, const OnUpgrade& on_upgrade = [](const auto&) {}) const;
  [[nodiscard]] int fd() const { return fd_.get(); }  // readable once any of them has come

 private:
  explicit Termination(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace ringway::tools
