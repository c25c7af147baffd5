// Server: receives requests over a socket, asks a handler, sends its replies; the same for both channels. It
// alone decides what a fault does. Runs on the thread that calls serve(). vhost-user "Communication",
// "REPLY_ACK".
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/user/codec.h"
#include "ringway/user/connection.h"
#include "ringway/user/negotiation.h"
#include "ringway/user/remote.h"
#include "ringway/vhost/transcript.h"

namespace ringway::user {

// A failed request is answered by the refusal its reply has, if a reply is due; the connection goes on. If
// none is due, a `violation` closes the connection and anything else is logged. Where a reply is due that has
// no refusal, and after `gone`, the connection is closed.
//
// need_reply counts only if REPLY_ACK is negotiated on this connection, before the message or by it:
// user-mode Linux waits for the acknowledgement of SET_PROTOCOL_FEATURES. GET_PROTOCOL_FEATURES need not have
// been asked: front-ends remember its answer when they reconnect.
template <class Request>
class Server {
 public:
  // `handler`, `negotiated` and `back_channel` (may be null) outlive the server.
  Server(std::shared_ptr<Connection> connection, vhost::Handler<Request>& handler,
         const Negotiated& negotiated, BackChannel* back_channel = nullptr)
      : connection_(std::move(connection)),
        handler_(handler),
        negotiated_(negotiated),
        back_channel_(back_channel) {}

  // Serves until the connection ends, and says why. The connection is closed then.
  Error serve();

 private:
  Result<> serve_one();
  Result<vhost::ReplyOf<Request>> ask(const Message& message, Frame frame);
  Result<> reply(const Message& message, bool due, vhost::ReplyOf<Request> value);
  Result<> refuse(const Message& message, bool due, const Error& error);
  Result<> refuse_unknown(const Header& header);
  [[nodiscard]] bool wants_ack(const Header& header) const;
  [[nodiscard]] bool reply_due(const Message& message, bool asked_for_ack) const;

  const std::shared_ptr<Connection> connection_;
  vhost::Handler<Request>& handler_;
  const Negotiated& negotiated_;
  BackChannel* const back_channel_;
  log::Limited limited_;
};

// A device served over one connection, both channels: what the device asks of its front-end goes over the
// back-end channel.
class DeviceServer final : private BackChannel {
 public:
  DeviceServer(std::shared_ptr<Connection> connection, vhost::Device& device, SocketFeatures offered = {});
  // As Server::serve. The back-end channel is closed as well.
  Error serve();

  // Live upgrade, between two messages. The conversation as frames that a fresh server of the same device may
  // replay(), in two parts, as Transcript has them. Refused without a gate in the connection: nothing was
  // kept.
  Result<std::vector<Frame>> setting();
  Result<std::vector<Frame>> start(std::span<const vhost::RingState> bases);
  Result<UniqueFd> duplicate_connection() const { return connection_->duplicate(); }
  // Before serve(), on its thread: what a front-end has said elsewhere. Nothing is answered.
  Result<> replay(Frame frame);

 private:
  // A front-end as the device was given it, and the socket it is asked over.
  struct Reached {
    std::weak_ptr<Remote<vhost::FrontEndRequest>> front_end;
    std::weak_ptr<Connection> connection;  // lives as long as the front-end
  };
  Result<std::shared_ptr<vhost::FrontEnd>> reach(UniqueFd fd) override;
  Result<UniqueFd> serve(std::shared_ptr<vhost::FrontEnd> front_end) override;
  Result<std::vector<Frame>> encoded(std::vector<vhost::DeviceRequest> requests);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<Negotiated> negotiated_ = std::make_shared<Negotiated>();
  BackEndNegotiation device_;
  std::optional<vhost::Transcript> transcript_;  // only where it may be asked for
  Server<vhost::DeviceRequest> server_;
  std::vector<Reached> front_ends_;
};

}  // namespace ringway::user
