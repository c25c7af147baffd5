// SignalsBlocked: while it lives, this thread takes no signals, and threads that it starts never will, except
// those that a thread causes itself by a fault. SIGTERM and its like are the main thread's; a broken pipe
// must not end the process.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace ringway::loop {

class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t most;
    sigfillset(&most);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF})
      sigdelset(&most, fault);
    ::pthread_sigmask(SIG_SETMASK, &most, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace ringway::loop
