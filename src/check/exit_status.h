// How a command of the user has ended. Any thread.
#pragma once

#include <string>

namespace ringway::check {

// The signal that a program died by; 0: none. The shell says 128 + n of one that died by signal n. `status`:
// as waitpid() tells.
[[nodiscard]] int signal_of_death(int status);
// "has ended with status 127", "died by signal 11 (Segmentation fault)"
[[nodiscard]] std::string describe_end(int status);

}  // namespace ringway::check
