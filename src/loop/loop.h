// Loop: a worker thread and everything that happens on it. It polls busy sources, sleeps when all are idle,
// carries file I/O (io_uring, or a thread pool where io_uring is forbidden), watches notification fds and
// keeps timers. Thread rule: post() and run() may be called from any thread; everything else only on the
// loop's own thread.
#pragma once

#include <sys/uio.h>

#include <cassert>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "ringway/base/notifier.h"
#include "ringway/base/result.h"

namespace ringway::loop {

// When a source without work is still polled.
enum class Polling : uint8_t {
  adaptive,  // for as long as polling has lately paid: busy queues are polled, idle ones cost nothing
  always,    // for ever
  never,     // not at all: every wait is for a notification
};

struct Options {
  Polling polling = Polling::adaptive;
  bool use_io_uring =
      true;  // false: epoll and a thread pool; also the fallback where io_uring cannot be set up
  std::optional<int> cpu;  // pins the thread
  std::string name = "worker";
};

struct SourceState;

// Something that a loop polls: a running queue. Not owned by the loop; removed from it before its end.
class Source {
 public:
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() { assert(state_ == nullptr); }
  // One bounded turn of work. True if there was any.
  virtual bool poll() = 0;
  // Nothing was found for a while: ask the peer for notifications. False: work came meanwhile, so stay awake.
  virtual bool park() = 0;
  // Notifications may be off again: poll() will be called.
  virtual void unpark() = 0;

 private:
  friend class Loop;
  SourceState* state_ = nullptr;  // the loop's, from add() to remove()
};

// One file operation, owned by the caller and untouched by it until `done` is called (on the loop's thread).
struct FileRequest {
  enum class Operation : uint8_t { read, write, sync, allocate, control };
  Operation operation = Operation::read;
  int fd = -1;
  std::span<const iovec> pieces;  // read, write
  uint64_t offset = 0;            // bytes
  uint64_t length = 0;            // bytes; allocate, control
  // read, write: RWF_*; sync: 1 for data only; allocate: FALLOC_FL_*; control: an ioctl that takes a range,
  // such as BLKDISCARD
  int flags = 0;
  // `result`: bytes or 0, or a negative errno.
  void (*done)(FileRequest& request, int64_t result) = nullptr;
};

// Called once at the end of the turn in which it was asked for, after all completions of that turn.
class Deferred {
 public:
  Deferred() = default;
  Deferred(const Deferred&) = delete;
  Deferred& operator=(const Deferred&) = delete;
  virtual ~Deferred() { assert(!queued_); }
  virtual void end_of_turn() = 0;

 private:
  friend class Loop;
  bool queued_ = false;
};

class Loop {
 public:
  using Task = std::move_only_function<void()>;
  using Clock = std::chrono::steady_clock;

  // Starts the thread.
  static Result<std::unique_ptr<Loop>> start(Options options);
  // Stops and joins the thread after the posted tasks have run and submitted file requests have ended. All
  // sources, watches and timers must have been removed.
  ~Loop();

  // Any thread. Tasks run in the order in which they were posted.
  void post(Task task);
  // Any other thread. Runs `task` on the loop's thread and returns when it is done.
  void run(Task task);
  [[nodiscard]] bool is_current() const;
  [[nodiscard]] bool uses_io_uring() const;

  // A new source is awake: it is polled from the next turn on. Removal may happen inside poll().
  void add(Source& source);
  void remove(Source& source);
  // Makes a parked source poll again, as its watched signal does.
  void wake(Source& source);

  // Wakes `source` whenever `signal` has events, which it takes. One per source; replaces. The signal must
  // outlive it.
  Result<> watch(Source& source, const Signal& signal);
  void unwatch(Source& source);

  // Wakes `source` once, when `fd` (a socket, a tap, an epoll instance) has one of `events` (POLLIN,
  // POLLOUT), or at once if it has one now; an error of the fd counts. Takes nothing from it. One such fd per
  // source, besides its signal: to be called again after each wake, as a rule in park(). The fd may be closed
  // after unwatch_fd() or remove().
  Result<> wake_when_ready(Source& source, int fd, short events);
  void unwatch_fd(Source& source);

  // Queues an operation; all that a turn has queued are submitted together at its end.
  void submit(FileRequest& request);

  void at_end_of_turn(Deferred& deferred);
  void forget(Deferred& deferred);

  // Calls `task` once, not before `delay` has passed (monotonic). The number cancels it; 0 is never one.
  uint64_t after(Clock::duration delay, Task task);
  void cancel(uint64_t timer);

 private:
  class Impl;  // NOLINT(cppcoreguidelines-virtual-class-destructor): it is final
  explicit Loop(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway::loop
