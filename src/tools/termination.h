// Termination: SIGTERM, SIGINT and SIGHUP, to be waited for instead of being interrupted. Made before the
// first thread starts, for the signals are blocked; kept until the program ends. Main thread.
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class Termination {
 public:
  static Result<Termination> make();
  // What is done meanwhile: at each SIGHUP, and from time to time.
  struct Meanwhile {
    std::function<void()> on_hangup = [] {};
    std::optional<std::chrono::milliseconds> interval;
    std::function<void()> on_interval = [] {};
  };
  // For SIGTERM or SIGINT.
  void wait(const Meanwhile& meanwhile) const;
  void wait() const { wait(Meanwhile()); }
  [[nodiscard]] int fd() const { return fd_.get(); }  // readable once any of the three has come

 private:
  explicit Termination(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace ringway::tools
