// Place: one socket path or inherited socket at which a device is served, and its session if a front-end is
// there. Owned by the Listener; everything under its lock except Session's thread.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "ringway/base/log.h"
#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/user/connection.h"
#include "ringway/user/hand_over.h"
#include "ringway/user/listener.h"
#include "ringway/user/server.h"

namespace ringway::user {

// One front-end being served, on a thread of its own.
class Session {
 public:
  // Calls `on_end` last on the session's thread. What the front-end does wrong is logged through `limited`.
  // With an inheritance it goes on where a session of another process has stopped.
  static Result<std::unique_ptr<Session>> start(std::shared_ptr<Connection> connection, SessionOwner& owner,
                                                log::Limited& limited, std::function<void()> on_end,
                                                std::shared_ptr<Inheritance> inheritance = {});
  ~Session() {
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] bool ended() const { return ended_; }
  // The front-end has left; what remains is to stop the rings.
  [[nodiscard]] bool is_ending() const { return ended_ || connection_->hung_up(); }
  // While its thread waits at a gate; null: it is serving nobody.
  [[nodiscard]] DeviceServer* server() { return server_ ? &*server_ : nullptr; }

 private:
  Session(std::shared_ptr<Connection> connection, SessionOwner& owner, log::Limited& limited,
          std::function<void()> on_end)
      : connection_(std::move(connection)), owner_(owner), limited_(limited), on_end_(std::move(on_end)) {}
  void run();
  void serve();
  void go_on();
  Result<> replay(std::vector<Frame> frames);

  const std::shared_ptr<Connection> connection_;
  SessionOwner& owner_;
  log::Limited& limited_;
  const std::function<void()> on_end_;
  std::shared_ptr<Inheritance> inheritance_;  // null: it began here
  std::optional<DeviceServer> server_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

// Delays that double up to a limit; each is shortened at random so that many do not come back at once.
class BackOff {
 public:
  BackOff(std::chrono::milliseconds first, std::chrono::milliseconds limit)
      : first_(first), limit_(limit), next_(first) {}
  std::chrono::milliseconds next();
  void reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds limit_;
  std::chrono::milliseconds next_;
};

// The file that bind() has made, so that only this one is removed at the end.
struct SocketFile {
  std::string path;
  dev_t device = 0;
  ino_t inode = 0;

  static Result<SocketFile> of(const std::string& path);
  [[nodiscard]] bool is_there() const;  // and nothing else by now
  void remove() const;                  // unless something else is there by now
};

struct Place {
  using Clock = std::chrono::steady_clock;
  using Kind = HandedPlace::Kind;

  Place(Kind of, std::string called, SessionOwner& by, const ListenerOptions& options)
      : kind(of),
        name(std::move(called)),
        owner(by),
        back_off(options.reconnect_after, options.reconnect_at_most) {}

  const Kind kind;
  const std::string name;
  SessionOwner& owner;
  UniqueFd listening;              // Kind::listens
  std::optional<SocketFile> file;  // if we have made it
  log::Limited limited;
  std::unique_ptr<Session> session;
  UniqueFd waiting;      // the next front-end, while the session of the one before is ending
  bool dormant = false;  // inherited: until Listener::take_up() only its session may begin
  std::optional<Clock::time_point> retry_at;  // accept or connect again
  Clock::time_point connected_at;
  BackOff back_off;
};

}  // namespace ringway::user
