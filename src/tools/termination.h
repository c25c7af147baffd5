// Termination: SIGTERM and SIGINT as a file descriptor. Made before the first thread starts, so that no
// thread is interrupted by them; kept until the program ends.
#pragma once

#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class Termination {
 public:
  Termination();
  void wait() const;                                  // for either of them
  [[nodiscard]] int fd() const { return fd_.get(); }  // readable once one has come

 private:
  UniqueFd fd_;
};

}  // namespace ringway::tools
