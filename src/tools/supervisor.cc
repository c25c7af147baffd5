#include "ringway/tools/supervisor.h"

#include <fmt/format.h>
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
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

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

// Of this process, one thread. Needs CONFIG_PROC_CHILDREN.
constexpr const char* children_file = "/proc/thread-self/children";

void refuse_upgrade(const signalfd_siginfo& signal) {
  constexpr const char* why = "the server has just ended and is being started again";
  UpgradeRequest::of(signal).answer(false, why);
  log::error("not upgraded: {}", why);
}

// 0: none, or not to be found out.
pid_t parent_of(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  std::string line;
  while (std::getline(status, line)) {
    constexpr std::string_view key = "PPid:\t";
    if (line.starts_with(key)) return std::atoi(line.c_str() + key.size());
  }
  return 0;
}

class Supervisor {
 public:
  explicit Supervisor(const Supervised& supervised) : supervised_(supervised) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // who follows a server by an upgrade is its child
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
      const bool was_healthy = Clock::now() - begin >= healthy_after;
      const bool never_served = first && !was_healthy && !was_asked_;
      const bool refused = never_served && WIFEXITED(status) && WEXITSTATUS(status) <= 2;
      if (!crashed || ending_ || refused) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
      delay = was_healthy ? milliseconds{0} : std::clamp(delay * 2, first_delay, longest_delay);
      log::warning("the server has {} {}: it is started again in {} ms",
                   WIFSIGNALED(status) ? "died of signal" : "ended with status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), delay.count());
      if (pause(delay)) return 1;
      if (!binary_.empty()) become();
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
    while (::waitpid(child_, &status, WNOHANG) != child_ || is_followed(status)) {
      const signalfd_siginfo signal = next_signal();
      if (signal.ssi_signo != 0 && signal.ssi_signo != SIGCHLD) pass_on(signal);
    }
    return status;
  }

  // After the server has ended: whether another goes on in its place.
  bool is_followed(int status) {
    pid_t next = 0;
    if (!(std::ifstream(children_file) >> next)) return false;
    if (status != 0) {  // it does not know what became of the one that should have followed it
      ::kill(next, SIGKILL);
      ::waitpid(next, nullptr, 0);
      return false;
    }
    child_ = next;
    std::error_code error;
    const auto binary = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", next), error);
    if (!error) binary_ = binary;
    if (ending_) ::kill(child_, SIGTERM);
    return true;
  }

  void become() const {
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
    supervised_.become(binary_);
    ::sigprocmask(SIG_BLOCK, &set_, nullptr);
  }

  [[noreturn]] void serve_and_exit(pid_t supervisor) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != supervisor) std::exit(1);  // it has died before that
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
    const int status = supervised_.serve();
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
    if (signal.ssi_signo == SIGUSR2) return pass_on_wish(signal);
    ending_ |= signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT;
    ::kill(child_, static_cast<int>(signal.ssi_signo));
  }

  void pass_on_wish(const signalfd_siginfo& signal) {
    const UpgradeRequest request = UpgradeRequest::of(signal);
    if (!request.mistake().empty()) return log::warning("{}", request.mistake());
    was_asked_ = true;
    const auto answer = ask_for_upgrade(child_, request.binary(), request.time_to_open());
    request.answer(answer && answer->moved, answer ? answer->sentence : answer.error());
    if (answer && answer->moved) binary_ = request.binary();
    if (!answer) log::error("not upgraded: {}", answer.error());
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

  const Supervised& supervised_;
  std::string binary_;  // of a server that has come by an upgrade; empty: it is this program
  sigset_t set_{};
  sigset_t before_{};
  UniqueFd signals_;
  pid_t child_ = -1;
  bool ending_ = false;
  bool was_asked_ = false;  // to upgrade
};

}  // namespace

int supervise(const Supervised& supervised) { return Supervisor(supervised).run(); }

std::string obstacle_when_supervised() {
  if (std::ifstream(children_file).is_open()) return {};
  return "under --restart-on-failure this needs a kernel with CONFIG_PROC_CHILDREN";
}

SuccessionUnderSupervisor::SuccessionUnderSupervisor()
    : before_(::getppid()), supervisor_(parent_of(before_)) {}

void SuccessionUnderSupervisor::complete() const {
  constexpr auto patience = std::chrono::seconds(10);
  const auto end = Clock::now() + patience;
  while (::getppid() == before_ && Clock::now() < end) std::this_thread::sleep_for(milliseconds(1));
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != supervisor_) ::kill(::getpid(), SIGTERM);  // it has died before that
}

}  // namespace ringway::tools
