// Notifier and Signal: the two ends of a notification, an eventfd or a pipe (vhost-user "Support for
// platforms other than Linux"). The peer shares the open file, so no call here may ever block, whatever state
// it leaves it in.
#pragma once

#include <cstdint>

#include "ringway/base/unique_fd.h"

namespace ringway {

// What a passed notification fd really is; anything else is refused.
enum class NotifyKind : uint8_t { eventfd, pipe };
Result<NotifyKind> notify_kind(int fd);

// The end that we write: a call fd, an err fd, a kick fd of a driver. Any thread, one at a time.
class Notifier {
 public:
  Notifier() = default;
  // Takes an eventfd or the write end of a pipe or FIFO; refuses every other kind.
  static Result<Notifier> adopt(UniqueFd fd);
  explicit operator bool() const { return static_cast<bool>(fd_); }
  // Adds one event. A full pipe or a saturated eventfd already holds an event, so nothing is lost by
  // skipping.
  void signal() const;

 private:
  Notifier(UniqueFd fd, NotifyKind kind) : fd_(std::move(fd)), kind_(kind) {}
  UniqueFd fd_;
  NotifyKind kind_ = NotifyKind::eventfd;
};

// The end that we read: a kick fd, a call fd of a driver.
class Signal {
 public:
  Signal() = default;
  // Takes an eventfd or the read end of a pipe or FIFO; refuses every other kind.
  static Result<Signal> adopt(UniqueFd fd);
  explicit operator bool() const { return static_cast<bool>(fd_); }
  [[nodiscard]] int fd() const { return fd_.get(); }  // to poll; never read from it directly
  // Takes all pending events; false if there was none. Never blocks, and ends even if the peer writes all the
  // time.
  bool take() const;

 private:
  Signal(UniqueFd fd, NotifyKind kind) : fd_(std::move(fd)), kind_(kind) {}
  [[nodiscard]] bool take_from_pipe() const;
  UniqueFd fd_;
  NotifyKind kind_ = NotifyKind::eventfd;
};

// A new eventfd, non-blocking and close-on-exec.
Result<UniqueFd> make_eventfd();

}  // namespace ringway
