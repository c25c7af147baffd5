// Termination: SIGTERM, SIGINT and SIGHUP, to be waited for instead of being interrupted. Made before the
// first thread starts, for the signals are blocked; kept until the program ends. Main thread.
#pragma once

#include <functional>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class Termination {
 public:
  static Result<Termination> make();
  // For SIGTERM or SIGINT. `on_hangup` is called at each SIGHUP.
  void wait(const std::function<void()>& on_hangup = [] {}) const;
  [[nodiscard]] int fd() const { return fd_.get(); }  // readable once any of the three has come

 private:
  explicit Termination(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace ringway::tools
