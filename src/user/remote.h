// Remote: a handler that answers by asking a peer over a socket; the same for both channels. Thread-safe: one
// request is under way at a time. vhost-user "Communication", "REPLY_ACK".
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ringway/user/codec.h"
#include "ringway/user/connection.h"
#include "ringway/user/negotiation.h"
#include "ringway/vhost/one_way.h"

namespace ringway::user {

// How long a reply may take. Stopping a ring waits for its requests, so this is the time of a slow disk.
inline constexpr std::chrono::milliseconds default_reply_time_out{60'000};

// Returns when the reply has come, if one is due: always with REPLY_ACK, so that refusals are seen; without
// it only for messages that have one, and others return as soon as they are sent. A request that was not
// negotiated is refused unsent. A reply that is wrong in any way, or late, closes the connection: every later
// request then fails as `gone`.
template <class Request>
class Remote final : public vhost::Handler<Request>, public vhost::OneWay<Request> {
 public:
  // `back_channel` may be null; it outlives the remote.
  Remote(std::shared_ptr<Connection> connection, std::shared_ptr<const Negotiated> negotiated,
         BackChannel* back_channel = nullptr,
         std::chrono::milliseconds reply_time_out = default_reply_time_out)
      : connection_(std::move(connection)),
        negotiated_(std::move(negotiated)),
        back_channel_(back_channel),
        reply_time_out_(reply_time_out) {}

  Result<vhost::ReplyOf<Request>> handle(Request request) override;
  // Asks for no acknowledgement. Returns when it is sent, if no reply is due anyway.
  Result<> tell(Request request) override;
  // Ends a request under way. Any thread.
  void close() { connection_->close(); }
  // Whether every later request fails as `gone`. Any thread.
  [[nodiscard]] bool is_broken() const { return broken_; }

 private:
  enum class Answer : uint8_t { wanted, unwanted };
  Result<vhost::ReplyOf<Request>> carry(Request request, Answer answer);
  Result<> allow(const Request& request) const;
  Result<vhost::ReplyOf<Request>> converse(const Message& message, Request request, Answer answer);
  Result<Frame> receive_reply(const Message& message, Connection::Deadline deadline);
  [[nodiscard]] bool can_acknowledge(const Message& message) const;
  [[nodiscard]] bool reply_due(const Message& message) const;
  [[nodiscard]] bool shares_log() const;
  void note(const Message& message);

  std::mutex mutex_;
  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<const Negotiated> negotiated_;
  BackChannel* const back_channel_;
  const std::chrono::milliseconds reply_time_out_;
  std::atomic<bool> broken_ = false;
  bool postcopy_ = false;  // after PostcopyListen: memory is answered by the back-end's addresses
};

// A front-end handler served on a thread of its own over a socket, until it ends.
class FrontEndService {
 public:
  static Result<std::unique_ptr<FrontEndService>> start(std::shared_ptr<Connection> connection,
                                                        std::shared_ptr<vhost::FrontEnd> front_end,
                                                        std::shared_ptr<const Negotiated> negotiated);
  ~FrontEndService();  // closes and joins; not on its own thread
  void close() { connection_->close(); }
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  FrontEndService(std::shared_ptr<Connection> connection, std::shared_ptr<vhost::FrontEnd> front_end,
                  std::shared_ptr<const Negotiated> negotiated)
      : connection_(std::move(connection)),
        front_end_(std::move(front_end)),
        negotiated_(std::move(negotiated)) {}
  void run();
  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<vhost::FrontEnd> front_end_;
  const std::shared_ptr<const Negotiated> negotiated_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

// A device reached over a socket, both channels. SetFrontEnd makes the back-end channel: the front-end is
// asked on a thread of its own, at any time, also while a request is under way here. It must not wait for a
// request to this device then.
class RemoteDevice final : public vhost::Device, private BackChannel {
 public:
  explicit RemoteDevice(std::shared_ptr<Connection> connection,
                        std::chrono::milliseconds reply_time_out = default_reply_time_out);
  // To the back-end that listens at `path`.
  static Result<std::unique_ptr<RemoteDevice>> connect(
      const std::string& path, ConnectionOptions options = {},
      std::chrono::milliseconds reply_time_out = default_reply_time_out);
  ~RemoteDevice() override;

  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override;
  // What the back-end's socket offers of its own; it is asked if it has not been.
  Result<SocketFeatures> offered_by_socket();
  // Ends a request under way, and both channels. Any thread.
  void close() { remote_.close(); }
  // Including the socket's own features, for those who want to show them.
  [[nodiscard]] vhost::Agreement agreement() const { return negotiated_->get(); }

 private:
  Result<std::shared_ptr<vhost::FrontEnd>> reach(UniqueFd fd) override;
  Result<UniqueFd> serve(std::shared_ptr<vhost::FrontEnd> front_end) override;
  void settle_front_end(bool accepted);

  std::mutex mutex_;
  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<Negotiated> negotiated_ = std::make_shared<Negotiated>();
  Remote<vhost::DeviceRequest> remote_;
  FrontEndNegotiation device_;
  std::unique_ptr<FrontEndService> front_end_;
  std::unique_ptr<FrontEndService> offered_;  // to a back-end that has not answered yet
  std::vector<std::unique_ptr<FrontEndService>> retired_;
};

}  // namespace ringway::user
