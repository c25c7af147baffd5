// Poller: what a loop needs of the kernel: file operations, watched signals, sleep. Two of them: io_uring
// (uring.h), and epoll with a pool of threads (epoll.h). Owned by the loop; everything on its thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "ringway/base/notifier.h"
#include "ringway/base/result.h"
#include "ringway/loop/loop.h"
#include "ringway/loop/mailbox.h"

namespace ringway::loop {

// One watched signal or other fd; the poller's.
struct Watch {
  const Signal* signal =
      nullptr;  // null: nothing is taken, and one event is reported each time that it is armed
  int fd = -1;
  short events = 0;  // poll(2)
  SourceState* source = nullptr;
  bool wanted = true;  // false: neither of the two may be touched
};

class Poller {
 public:
  // Told that a watched signal had events, which have been taken, or that a watched fd has one. May be told
  // without cause.
  class Client {
   public:
    virtual void signalled(SourceState& source) = 0;

   protected:
    ~Client() = default;
  };

  virtual ~Poller() = default;

  // Reports every event that comes after, and one that is there already.
  virtual Result<Watch*> watch(const Signal& signal, SourceState& source) = 0;
  // Reports one event, at once if it is there; the next after rearm().
  virtual Result<Watch*> watch_once(int fd, short events, SourceState& source) = 0;
  virtual Result<> rearm(Watch& watch) = 0;
  // After it neither signal nor fd nor source is touched.
  virtual void unwatch(Watch* watch) = 0;

  virtual void submit(FileRequest& request) = 0;
  [[nodiscard]] virtual size_t in_flight() const = 0;  // requests submitted and not done
  // Of these, the ones that are carried out by threads, and not by an interrupt of the disk.
  [[nodiscard]] virtual size_t in_threads() const { return in_flight(); }

  // Deals with completions and events that are there, a bounded number; no system call where none is. False
  // if there was none.
  virtual bool reap() = 0;
  // Hands to the kernel what was submitted; never blocks.
  virtual void flush() = 0;
  // flush(), then sleeps until there is something to reap, the doorbell rings, or the time has come.
  virtual void sleep(std::optional<Loop::Clock::time_point> until) = 0;
  // Something to reap was published by another thread: the last look before sleep.
  [[nodiscard]] virtual bool pending() const { return false; }
};

// On the loop's own thread.
Result<std::unique_ptr<Poller>> make_uring_poller(Poller::Client& client, std::shared_ptr<Doorbell> doorbell);
Result<std::unique_ptr<Poller>> make_epoll_poller(Poller::Client& client, std::shared_ptr<Doorbell> doorbell);

}  // namespace ringway::loop
