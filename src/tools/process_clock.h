// ProcessClock: the CPU time that a process and all its threads have used, of any process that can be seen.
// Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace ringway::tools {

class ProcessClock {
 public:
  // `pid` 0: there is nothing to read. It is another process's pid as soon as its owner has ended.
  explicit ProcessClock(pid_t pid);
  static ProcessClock own();
  // Nanoseconds; nothing if it has ended or cannot be seen.
  [[nodiscard]] std::optional<int64_t> read() const;

 private:
  ProcessClock() = default;
  std::optional<clockid_t> clock_;
};

}  // namespace ringway::tools
