#include "ringway/tools/process_clock.h"

#include <ctime>

namespace ringway::tools {

ProcessClock::ProcessClock(pid_t pid) {
  clockid_t clock = 0;
  if (pid > 0 && ::clock_getcpuclockid(pid, &clock) == 0) clock_ = clock;
}

ProcessClock ProcessClock::own() {
  ProcessClock clock;
  clock.clock_ = CLOCK_PROCESS_CPUTIME_ID;
  return clock;
}

std::optional<int64_t> ProcessClock::read() const {
  timespec time{};
  if (!clock_ || ::clock_gettime(*clock_, &time) != 0) return std::nullopt;
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

}  // namespace ringway::tools
