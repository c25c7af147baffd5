#include "ringway/tools/until_signal.h"

#include <sys/signalfd.h>

#include <csignal>

namespace ringway::tools {

UniqueFd take_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
}

void wait_for_end(const UniqueFd& signals, const std::function<void()>& on_hangup) {
  signalfd_siginfo info{};
  while (true) {
    if (::read(signals.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) continue;
    if (info.ssi_signo != SIGHUP) return;
    on_hangup();
  }
}

}  // namespace ringway::tools
