#include "ringway/tools/termination.h"

#include <poll.h>
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

void Termination::hold_back_reports() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGHUP, SIGUSR1}) ::sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void Termination::wait(const Meanwhile& meanwhile) const {
  const int time_out = meanwhile.interval ? static_cast<int>(meanwhile.interval->count()) : -1;
  signalfd_siginfo info{};
  while (true) {
    pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, time_out) == 0) meanwhile.on_interval();
    if ((entry.revents & POLLIN) == 0) continue;
    if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) continue;
    if (info.ssi_signo == SIGHUP) {
      meanwhile.on_hangup();
    } else if (info.ssi_signo == SIGUSR1) {
      meanwhile.on_report();
    } else if (info.ssi_signo == SIGUSR2) {
      meanwhile.on_upgrade(info);
    } else {
      return;
    }
  }
}

}  // namespace ringway::tools
