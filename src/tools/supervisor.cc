#include "ringway/tools/supervisor.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "ringway/base/log.h"

namespace ringway::tools {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds first_delay{20};
constexpr milliseconds longest_delay{5'000};
constexpr std::chrono::seconds healthy_after{2};  // a server that lived so long has not failed in a row

class Supervisor {
 public:
  explicit Supervisor(const std::function<int()>& serve) : serve_(serve) {
    ::sigemptyset(&set_);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) ::sigaddset(&set_, number);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
  }
  ~Supervisor() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  int run() {
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
      const int number = ::sigwaitinfo(&set_, nullptr);
      if (number > 0 && number != SIGCHLD) pass_on(number);
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

  void pass_on(int number) {
    ending_ |= number != SIGHUP;
    ::kill(child_, number);
  }

  // True: it is to end.
  bool pause(milliseconds length) const {
    const auto end = Clock::now() + length;
    while (Clock::now() < end) {
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(end - Clock::now()).count();
      const timespec time{.tv_sec = left / 1'000'000'000, .tv_nsec = std::max<long>(left % 1'000'000'000, 0)};
      const int number = ::sigtimedwait(&set_, nullptr, &time);
      if (number == SIGTERM || number == SIGINT) return true;
    }
    return false;
  }

  const std::function<int()>& serve_;
  sigset_t set_{};
  sigset_t before_{};
  pid_t child_ = -1;
  bool ending_ = false;
};

}  // namespace

int supervise(const std::function<int()>& serve) { return Supervisor(serve).run(); }

}  // namespace ringway::tools
