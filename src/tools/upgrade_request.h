// How an upgrade is asked for: SIGUSR2, with a number, and a socket by that number at which the one who asks
// waits, says which program he means and is told how it ended. A bare SIGUSR2 means the program that runs
// now; how it ended is in the log then. Main thread.
#pragma once

#include <sys/signalfd.h>
#include <sys/types.h>

#include <chrono>
#include <string>

#include "ringway/base/unique_fd.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {

// ---- the process that serves

class UpgradeRequest {
 public:
  // Whoever may send a signal here may also say which program is started: he must be root or our own user.
  static UpgradeRequest of(const signalfd_siginfo& signal);

  // Nothing was asked for that can be believed.
  [[nodiscard]] const std::string& mistake() const { return mistake_; }
  [[nodiscard]] const std::string& binary() const { return binary_; }  // empty: the one that runs
  [[nodiscard]] std::chrono::seconds time_to_open() const { return time_to_open_; }
  void answer(bool moved, const std::string& sentence) const;

 private:
  Parsed<void> ask(const signalfd_siginfo& signal);
  UniqueFd socket_;  // none: nobody waits
  std::string mistake_;
  std::string binary_;
  std::chrono::seconds time_to_open_{60};
};

// The path of the program that runs, to be asked for before somebody replaces it.
std::string own_binary();

// ---- the one who asks

struct UpgradeAnswer {
  bool moved = false;
  std::string sentence;
};
// Blocks. The error is a sentence: the process cannot be asked.
Parsed<UpgradeAnswer> ask_for_upgrade(pid_t pid, const std::string& binary,
                                      std::chrono::seconds time_to_open);

}  // namespace ringway::tools
