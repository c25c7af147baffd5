#include "ringway/user/server.h"

#include <utility>
#include <variant>

#include "ringway/vhost/one_way.h"

namespace ringway::user {

using vhost::DeviceRequest;
using vhost::FrontEndRequest;
using vhost::ReplyOf;

template <class Request>
Error Server<Request>::serve() {
  while (true) {
    Result<> served = serve_one();
    if (served) continue;
    connection_->close();
    return served.error();
  }
}

template <class Request>
Result<> Server<Request>::serve_one() {
  Frame frame = TRY(connection_->receive());
  const Header header = frame.header;
  if (header.is_reply()) return violation("a reply came where a request was due", header.request);
  const Message* message = find_message<Request>(header.request);
  if (message == nullptr) return refuse_unknown(header);
  const bool asked_for_ack = wants_ack(header);
  Result<ReplyOf<Request>> answer = ask(*message, std::move(frame));
  const bool due = reply_due(*message, asked_for_ack || wants_ack(header));
  if (!answer) return refuse(*message, due, answer.error().about(message_name<Request>(message->id)));
  return reply(*message, due, *std::move(answer));
}

template <class Request>
Result<ReplyOf<Request>> Server<Request>::ask(const Message& message, Frame frame) {
  if (!negotiated_.get().allows(vhost::catalogue<Request>[message.id - 1].need))
    return refused("was not negotiated");
  const bool wants_answer = message.reply != Reply::ack || frame.header.needs_reply();
  Request request = TRY(decode<Request>(std::move(frame), back_channel_));
  if (wants_answer) return handler_.handle(std::move(request));
  TRY(vhost::tell(handler_, std::move(request)));
  return ReplyOf<Request>(vhost::Done{});
}

template <class Request>
Result<> Server<Request>::reply(const Message& message, bool due, ReplyOf<Request> value) {
  if (!due && std::holds_alternative<vhost::Done>(value)) return {};
  Result<Frame> frame = encode_reply<Request>(message, std::move(value));
  if (!frame) return refuse(message, due, frame.error());
  return connection_->send(*frame);
}

template <class Request>
Result<> Server<Request>::refuse(const Message& message, bool due, const Error& error) {
  if (error.fault == Fault::gone) return std::unexpected(error);
  if (!due && error.fault == Fault::violation) return std::unexpected(error);
  limited_.warning("{}: refused: {}", connection_->options().name, error.to_string());
  if (!due) return {};
  const std::optional<Frame> refusal = encode_refusal<Request>(message);
  if (!refusal) return std::unexpected(error);
  return connection_->send(*refusal);
}

template <class Request>
Result<> Server<Request>::refuse_unknown(const Header& header) {
  if (!wants_ack(header)) return violation("unknown message", header.request);
  limited_.warning("{}: refused: unknown message {}", connection_->options().name, header.request);
  return connection_->send(encode_status({.id = header.request}, false));
}

template <class Request>
bool Server<Request>::wants_ack(const Header& header) const {
  return header.needs_reply() && negotiated_.get().has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
}

template <class Request>
bool Server<Request>::reply_due(const Message& message, bool asked_for_ack) const {
  switch (message.reply) {
    case Reply::ack:
    case Reply::memory:
      return asked_for_ack;
    case Reply::log_status:
      return asked_for_ack || negotiated_.get().has_capability(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD);
    case Reply::status:
    case Reply::value:
    case Reply::value_or_refusal:
      return true;
  }
  return false;
}

template class Server<DeviceRequest>;
template class Server<FrontEndRequest>;

// ---- DeviceServer

DeviceServer::DeviceServer(std::shared_ptr<Connection> connection, vhost::Device& device,
                           SocketFeatures offered)
    : connection_(connection),
      device_(device, *negotiated_, offered),
      server_(std::move(connection), device_, *negotiated_, this) {}

Error DeviceServer::serve() {
  const Error why = server_.serve();
  for (const auto& front_end : front_ends_) {
    if (const auto alive = front_end.lock()) alive->close();
  }
  return why;
}

// A front-end that is replaced stays open until the device lets go of it.
Result<std::shared_ptr<vhost::FrontEnd>> DeviceServer::reach(UniqueFd fd) {
  auto connection = TRY(Connection::adopt(std::move(fd), connection_->options()));
  auto front_end = std::make_shared<Remote<FrontEndRequest>>(std::move(connection), negotiated_);
  std::erase_if(front_ends_, [](const auto& one) { return one.expired(); });
  front_ends_.push_back(front_end);
  return front_end;
}

Result<UniqueFd> DeviceServer::serve(std::shared_ptr<vhost::FrontEnd>) {
  return refused("a device has no front-ends to serve");
}

}  // namespace ringway::user
