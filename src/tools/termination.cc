#include "ringway/tools/termination.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

namespace ringway::tools {

Result<Termination> Termination::make(std::initializer_list<int> more) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
  for (const int number : more) ::sigaddset(&set, number);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd) return os_failure("cannot wait for signals");
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return Termination(std::move(fd));
}

void Termination::wait(const std::function<void()>& on_hangup, const OnUpgrade& on_upgrade) const {
  signalfd_siginfo info{};
  while (true) {
    if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) continue;
    if (info.ssi_signo == SIGHUP) {
      on_hangup();
    } else if (info.ssi_signo == SIGUSR2) {
      on_upgrade(info);
    } else {
      return;
    }
  }
}

}  // namespace ringway::tools
