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
    : connection_(std::move(connection)),
      device_(device, *negotiated_, offered),
      transcript_(connection_->options().gate ? std::optional<vhost::Transcript>(std::in_place, device_)
                                              : std::nullopt),
      server_(connection_, transcript_ ? static_cast<vhost::Device&>(*transcript_) : device_, *negotiated_,
              this) {}

Error DeviceServer::serve() {
  const Error why = server_.serve();
  for (const Reached& reached : front_ends_) {
    if (const auto alive = reached.front_end.lock()) alive->close();
  }
  return why;
}

// A front-end that is replaced stays open until the device lets go of it.
Result<std::shared_ptr<vhost::FrontEnd>> DeviceServer::reach(UniqueFd fd) {
  ConnectionOptions options = connection_->options();
  options.gate.reset();
  auto connection = TRY(Connection::adopt(std::move(fd), std::move(options)));
  auto front_end = std::make_shared<Remote<FrontEndRequest>>(connection, negotiated_);
  std::erase_if(front_ends_, [](const Reached& one) { return one.front_end.expired(); });
  front_ends_.push_back({front_end, connection});
  return front_end;
}

// For the one who goes on with this conversation: the socket that the front-end is asked over already.
Result<UniqueFd> DeviceServer::serve(std::shared_ptr<vhost::FrontEnd> front_end) {
  for (const Reached& reached : front_ends_) {
    const std::shared_ptr<Connection> connection = reached.connection.lock();
    if (connection && reached.front_end.lock() == front_end) return connection->duplicate();
  }
  return refused("a device has no front-ends to serve");
}

// ---- live upgrade

Result<std::vector<Frame>> DeviceServer::encoded(std::vector<DeviceRequest> requests) {
  std::vector<Frame> frames;
  for (DeviceRequest& request : requests) {
    Frame frame = TRY(encode(std::move(request), this));
    frames.push_back(std::move(frame));
  }
  return frames;
}

Result<std::vector<Frame>> DeviceServer::setting() {
  if (!transcript_) return refused("this session was not kept for an upgrade");
  return encoded(TRY(transcript_->setting()));
}

Result<std::vector<Frame>> DeviceServer::start(std::span<const vhost::RingState> bases) {
  if (!transcript_) return refused("this session was not kept for an upgrade");
  return encoded(TRY(transcript_->start(bases)));
}

Result<> DeviceServer::replay(Frame frame) {
  const uint32_t id = frame.header.request;
  DeviceRequest request = TRY(decode<DeviceRequest>(std::move(frame), this));
  vhost::Device& device = transcript_ ? static_cast<vhost::Device&>(*transcript_) : device_;
  const Result<vhost::DeviceReply> done = device.handle(std::move(request));
  if (!done) return std::unexpected(done.error().about(message_name<DeviceRequest>(id)));
  return {};
}

}  // namespace ringway::user
