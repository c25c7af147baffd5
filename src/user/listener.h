// Listener: brings front-ends to devices, for all sockets of a process: one thread waits on all of them, and
// each front-end that is there has a session thread of its own. Idle devices have none. vhost-user "Backend
// program conventions": --socket-path, --fd; and the client mode, in which the back-end connects.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/user/connection.h"
#include "ringway/user/hand_over.h"
#include "ringway/user/negotiation.h"
#include "ringway/vhost/handler.h"

namespace ringway::user {

// Whoever has a device to serve, to one front-end after another. Called on session threads: for one owner
// always in the order connected, disconnected, never two at once.
class SessionOwner {
 public:
  virtual ~SessionOwner() = default;
  // A front-end has come. The device is asked on this thread only; it must last until disconnected() returns.
  // An error sends the front-end away.
  virtual Result<vhost::Device*> connected() = 0;
  // It has left, for whatever reason: stop all rings before returning. Not called if connected() has failed.
  virtual void disconnected() = 0;
  // For owners whose device is behind another connection, which may end first: before connected(), to close()
  // this session from any thread; and after it, what the device's connection can do.
  virtual void arrived(const std::shared_ptr<Connection>& /*front_end*/) {}
  virtual SocketFeatures socket_features() { return {}; }
};

struct ListenerOptions {
  std::optional<mode_t> socket_mode;               // permissions of sockets that are made; none: the umask's
  std::vector<uid_t> allowed_users;                // who may connect (SO_PEERCRED); empty: whoever can
  std::chrono::milliseconds reconnect_after{100};  // client mode: doubled after every failure,
  std::chrono::milliseconds reconnect_at_most{
      5'000};  // up to this, each time shortened by up to a quarter at random
  std::chrono::milliseconds message_time_out = ConnectionOptions{}.message_time_out;
  FrameObserver observer;          // called on session threads
  std::function<void()> finished;  // on the waiting thread: no front-end can come any more
  bool can_hand_over = false;      // hold() will be called: sessions keep what that needs
};

// One front-end at a time is served at each place. Another that connects meanwhile is sent away at once, by
// closing; but if the one before it has left and its rings are only being stopped, the next one waits.
class Listener {
 public:
  static Result<std::unique_ptr<Listener>> start(ListenerOptions options = {});
  ~Listener();  // stop()

  // Owners last until stop() has returned. Any thread.
  Result<> listen(const std::string& path, SessionOwner& owner);
  // A socket from --fd or a manager, listening or connected. A connected one is served once. `name`: of the
  // place; empty: "fd N".
  Result<> adopt(UniqueFd fd, SessionOwner& owner, std::string name = {});
  // Connects to a front-end that listens at `path`, and again whenever the connection has ended.
  Result<> connect(const std::string& path, SessionOwner& owner);

  // Live upgrade, the giving side. From hold() to release() no front-end comes and none is listened to;
  // devices run on. Only release(), start_of() and the end of the process may follow. Refused, and as before,
  // if some request is not done by `deadline` or a session cannot be told again.
  Result<std::vector<HandedPlace>> hold(std::chrono::steady_clock::time_point deadline);
  // What starts the rings of this owner's device elsewhere: DeviceServer::start().
  Result<std::vector<Frame>> start_of(const SessionOwner& owner, std::span<const vhost::RingState> bases);
  void release();
  // The taking side, instead of listen(), adopt() and connect(). Null: there is no session to go on with. No
  // other front-end comes before take_up().
  Result<std::shared_ptr<Inheritance>> inherit(HandedPlace place, SessionOwner& owner);
  Result<> take_up();

  // Ends all sessions, waits for their owners, removes the sockets that listen() has made. Any thread but a
  // session's.
  void stop();

 private:
  class Impl;
  explicit Listener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway::user
