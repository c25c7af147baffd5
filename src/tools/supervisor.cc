#include "ringway/tools/supervisor.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "ringway/base/log.h"
#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/tools/upgrade_request.h"

namespace ringway::tools {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds first_delay{20};
constexpr milliseconds longest_delay{5'000};
constexpr std::chrono::seconds healthy_after{2};  // a server that lived so long has not failed in a row

void refuse_upgrade(const signalfd_siginfo& signal) {
  UpgradeRequest::of(signal).answer(false, std::string(no_upgrade_when_supervised));
  log::error("not upgraded: {}", no_upgrade_when_supervised);
}

class Supervisor {
 public:
  explicit Supervisor(const std::function<int()>& serve) : serve_(serve) {
    ::sigemptyset(&set_);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD}) ::sigaddset(&set_, number);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
    signals_.reset(::signalfd(-1, &set_, SFD_CLOEXEC));
  }
  ~Supervisor() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  int run() {
    if (!signals_) {
      log::error("{}", os_failure("cannot wait for signals").error().to_string());
      return 1;
    }
    milliseconds delay{0};
    for (bool first = true;; first = false) {
      const auto begin = Clock::now();
      const int status = run_once();
      const bool crashed = WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
      const bool refused = first && WIFEXITED(status) && WEXITSTATUS(status) <= 2;
      if (!crashed || ending_ || refused) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
      const bool was_healthy = Clock::now() - begin >= healthy_after;
      delay = was_healthy ? milliseconds{0} : std::clamp(delay * 2, first_delay, longest_delay);
      log::warning("the server has {} {}: it is started again in {} ms",
                   WIFSIGNALED(status) ? "died of signal" : "ended with status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), delay.count());
      if (pause(delay)) return 1;
    }
  }

 private:
  // The status as waitpid() tells it.
  int run_once() {
    const pid_t own = ::getpid();
    std::fflush(nullptr);
    child_ = ::fork();
    if (child_ < 0) return W_EXITCODE(1, 0);
    if (child_ == 0) serve_and_exit(own);
    int status = 0;
    while (::waitpid(child_, &status, WNOHANG) != child_) {
      const signalfd_siginfo signal = next_signal();
      if (signal.ssi_signo != 0 && signal.ssi_signo != SIGCHLD) pass_on(signal);
    }
    return status;
  }

  [[noreturn]] void serve_and_exit(pid_t supervisor) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != supervisor) std::exit(1);  // it has died before that
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
    const int status = serve_();
    std::fflush(nullptr);
    std::_Exit(status);  // what the supervisor has opened is its to close
  }

  // Blocks. Not sigwaitinfo(2): who asks for an upgrade sees that SIGUSR2 is blocked, which that hides.
  [[nodiscard]] signalfd_siginfo next_signal() const {
    signalfd_siginfo signal{};
    if (::read(signals_.get(), &signal, sizeof signal) != static_cast<ssize_t>(sizeof signal)) return {};
    return signal;
  }

  void pass_on(const signalfd_siginfo& signal) {
    if (signal.ssi_signo == SIGUSR2) return refuse_upgrade(signal);
    ending_ |= signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT;
    ::kill(child_, static_cast<int>(signal.ssi_signo));
  }

  // True: it is to end.
  bool pause(milliseconds length) const {
    const auto end = Clock::now() + length;
    while (Clock::now() < end) {
      const auto left = std::chrono::ceil<milliseconds>(end - Clock::now()).count();
      pollfd entry{.fd = signals_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, static_cast<int>(left)) != 1) continue;
      const signalfd_siginfo signal = next_signal();
      if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT) return true;
      if (signal.ssi_signo == SIGUSR2) refuse_upgrade(signal);
    }
    return false;
  }

  const std::function<int()>& serve_;
  sigset_t set_{};
  sigset_t before_{};
  UniqueFd signals_;
  pid_t child_ = -1;
  bool ending_ = false;
};

}  // namespace

int supervise(const std::function<int()>& serve) { return Supervisor(serve).run(); }

}  // namespace ringway::tools
