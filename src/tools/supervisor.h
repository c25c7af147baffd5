// Supervisor: a process that does nothing but start a server, and start it again when it has crashed. It
// keeps what was opened before, so front-ends that connect meanwhile wait instead of being refused. Main
// thread, and no other may have been started.
#pragma once

#include <functional>
#include <string>

namespace ringway::tools {

// What a supervisor does. Both are called in the process and at the moment that they are about.
struct Supervised {
  std::function<int()> serve;  // in the server: the value is its exit status
  // In the supervisor, when a server that has come by an upgrade is to be started again: goes on as the
  // program at this path, with what was opened. Returns if it cannot.
  std::function<void(const std::string& binary)> become;
};

// Runs a server in a process of its own until it ends with 0, or is told to end by SIGTERM or SIGINT, which
// it is told too, as of SIGHUP and SIGUSR1. Who asks for an upgrade (SIGUSR2) is answered by the server; the
// one that follows it is supervised then. A server that cannot even start the first time is not started
// again. The value is the exit status of the last one.
int supervise(const Supervised& supervised);

// In a server: why none could follow it; empty: one can.
std::string obstacle_when_supervised();
// In a server that has come by an upgrade: waits until the one before has ended, and goes with their
// supervisor from then on.
class SuccessionUnderSupervisor {
 public:
  // While the one before lives.
  SuccessionUnderSupervisor();
  void complete() const;

 private:
  const int before_;
  const int supervisor_;
};

}  // namespace ringway::tools
