// Termination: SIGTERM, SIGINT and SIGHUP, SIGUSR1 and SIGUSR2 where they mean something, to be waited for
// instead of being interrupted. Made before the first thread starts, for the signals are blocked; kept until
// the program ends. Main thread.
#pragma once

#include <sys/signalfd.h>

#include <chrono>
#include <functional>
#include <initializer_list>
#include <optional>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class Termination {
 public:
  // `more`: SIGUSR1, SIGUSR2; those that are not there end the program, as they do elsewhere.
  static Result<Termination> make(std::initializer_list<int> more = {});
  // Until then the program may be starting for long: SIGHUP and SIGUSR1 wait for make(), in children too, and
  // do not end it.
  static void hold_back_reports();
  // What is done meanwhile: at each SIGHUP, SIGUSR1 and SIGUSR2, and from time to time.
  struct Meanwhile {
    std::function<void()> on_hangup = [] {};
    std::function<void()> on_report = [] {};
    std::function<void(const signalfd_siginfo&)> on_upgrade = [](const auto&) {};
    std::optional<std::chrono::milliseconds> interval;
    std::function<void()> on_interval = [] {};
  };
  // For SIGTERM or SIGINT.
  void wait(const Meanwhile& meanwhile) const;
  void wait() const { wait(Meanwhile()); }
  [[nodiscard]] int fd() const { return fd_.get(); }  // readable once any of them has come

 private:
  explicit Termination(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace ringway::tools
