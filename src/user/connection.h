// Connection: frames over a UNIX stream socket (or, only to send, a pipe). Nothing blocks beyond its deadline
// or Stop. Thread rule: one thread receives and one sends, which may differ; close(), stop_receiving() and
// hung_up() from any thread. vhost-user "Communication": file descriptors come with a message's first bytes.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/user/frame.h"
#include "ringway/user/gate.h"
#include "ringway/user/stop.h"

namespace ringway::user {

struct ConnectionOptions {
  std::string name = "peer";                           // in log lines: the socket's path
  std::shared_ptr<const Stop> stop;                    // null: only close() ends a wait
  std::shared_ptr<Gate> gate;                          // where receive() waits between messages; may be null
  std::chrono::milliseconds message_time_out{10'000};  // for the rest of a message whose first byte has come
  FrameObserver observer;
};

class Connection {
 public:
  using Clock = std::chrono::steady_clock;
  using Deadline = std::optional<Clock::time_point>;  // none: wait for ever

  // Takes a UNIX stream socket or the write end of a pipe; refuses every other kind.
  static Result<std::shared_ptr<Connection>> adopt(UniqueFd fd, ConnectionOptions options = {});

  // Waits until `deadline` for a message to begin. Fault `gone`: the peer has closed, or close() or Stop
  // ended the wait; `violation`: wrong version, too large, or late; the stream is of no use after either.
  Result<Frame> receive(Deadline deadline = {});
  // Sends all of it or fails; the stream is of no use after a failure.
  Result<> send(const Frame& frame, Deadline deadline = {});

  [[nodiscard]] const ConnectionOptions& options() const { return options_; }
  [[nodiscard]] bool can_receive() const { return is_socket_; }
  // Ends what is waiting now and everything after. The file descriptor stays open until the object ends.
  void close();
  // What has come is still received, then `gone`; sending goes on, and the peer cannot send any more.
  void stop_receiving();
  // Another descriptor of the same socket, for another process.
  [[nodiscard]] Result<UniqueFd> duplicate() const { return fd_.duplicate(); }
  // The peer has left, whether or not all that it sent was received.
  [[nodiscard]] bool hung_up() const;

 private:
  struct Piece;
  Connection(UniqueFd fd, bool is_socket, ConnectionOptions options)
      : fd_(std::move(fd)), is_socket_(is_socket), options_(std::move(options)) {}

  Result<> fill(std::span<std::byte> to, Frame& frame, Deadline deadline, bool begins);
  Result<Piece> receive_some(std::span<std::byte> to);
  Result<size_t> send_some(std::span<const std::byte> from, std::span<const UniqueFd> fds);
  Result<> wait(short events, Deadline deadline, const char* late, Gate* gate = nullptr);
  void observe(Direction direction, const Frame& frame) const;

  const UniqueFd fd_;
  const bool is_socket_;
  const ConnectionOptions options_;
};

}  // namespace ringway::user
