#include "ringway/check/exit_status.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <cstring>

namespace ringway::check {

int signal_of_death(int status) {
  const int by = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) - 128;
  return by > 0 && by < 65 ? by : 0;
}

std::string describe_end(int status) {
  if (const int by = signal_of_death(status); by > 0)
    return fmt::format("died by signal {} ({})", by, ::strsignal(by));
  return fmt::format("has ended with status {}", WEXITSTATUS(status));
}

}  // namespace ringway::check
