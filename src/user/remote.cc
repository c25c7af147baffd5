#include "ringway/user/remote.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "ringway/base/log.h"
#include "ringway/user/server.h"
#include "ringway/user/sockets.h"

namespace ringway::user {

using vhost::DeviceRequest;
using vhost::Done;
using vhost::FrontEndRequest;
using vhost::ReplyOf;

namespace {

constexpr auto closed_after_error = "the connection was closed after an error";

// The specification does not say what the reply to SET_LOG_BASE carries where one is always due, and peers
// answer with a status, the size of the log, or nothing. So it says only that the message was handled.
void forget_log_value(Frame& reply) { std::ranges::fill(reply.payload, std::byte{0}); }

}  // namespace

template <class Request>
Result<ReplyOf<Request>> Remote<Request>::handle(Request request) {
  return carry(std::move(request), Answer::wanted);
}

template <class Request>
Result<> Remote<Request>::tell(Request request) {
  TRY(carry(std::move(request), Answer::unwanted));
  return {};
}

template <class Request>
Result<ReplyOf<Request>> Remote<Request>::carry(Request request, Answer answer) {
  const std::scoped_lock lock(mutex_);
  if (broken_) return gone(closed_after_error);
  TRY(allow(request));
  const Message& message = messages<Request>[request.index()];
  Result<ReplyOf<Request>> reply = converse(message, std::move(request), answer);
  if (reply) note(message);
  if (!reply && reply.error().fault != Fault::refused) {
    broken_ = true;
    connection_->close();
  }
  return reply;
}

template <class Request>
Result<> Remote<Request>::allow(const Request& request) const {
  const vhost::RequestInfo& info = vhost::info_of(request);
  if (negotiated_->get().allows(info.need)) return {};
  return std::unexpected(refused("was not negotiated").error().about(info.name));
}

template <class Request>
Result<ReplyOf<Request>> Remote<Request>::converse(const Message& message, Request request, Answer answer) {
  const Asked what = asked(request);
  const bool asks_for_ack = answer == Answer::wanted && can_acknowledge(message);
  const bool due = asks_for_ack || reply_due(message);
  if (due && !connection_->can_receive()) return refused("a reply cannot come over a pipe");
  Frame frame = TRY(encode(std::move(request), back_channel_));
  constexpr bool back_end_sends = std::is_same_v<Request, FrontEndRequest>;
  if (back_end_sends && !frame.fds.empty() &&
      !negotiated_->get().has_capability(vhost::VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD)) {
    return refused("BACKEND_SEND_FD was not negotiated");
  }
  if (asks_for_ack) frame.header.flags |= need_reply_flag;
  const Connection::Deadline deadline = Connection::Clock::now() + reply_time_out_;
  TRY(connection_->send(frame, deadline));
  if (!due) return ReplyOf<Request>(Done{});
  Frame reply = TRY(receive_reply(message, deadline));
  if (message.reply == Reply::log_status && shares_log()) forget_log_value(reply);
  return decode_reply<Request>(message, what, std::move(reply));
}

template <class Request>
Result<Frame> Remote<Request>::receive_reply(const Message& message, Connection::Deadline deadline) {
  Frame frame = TRY(connection_->receive(deadline));
  if (!frame.header.is_reply())
    return violation("a request came where a reply was due", frame.header.request);
  if (frame.header.request != message.id)
    return violation("a reply to another request came", frame.header.request);
  return frame;
}

template <class Request>
bool Remote<Request>::can_acknowledge(const Message& message) const {
  if (!connection_->can_receive()) return false;
  if (!negotiated_->get().has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK)) return false;
  return message.reply == Reply::ack || (message.reply == Reply::log_status && !shares_log()) ||
         (message.reply == Reply::memory && !postcopy_);
}

template <class Request>
bool Remote<Request>::shares_log() const {
  return negotiated_->get().has_capability(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD);
}

template <class Request>
bool Remote<Request>::reply_due(const Message& message) const {
  switch (message.reply) {
    case Reply::ack:
      return false;
    case Reply::memory:
      return postcopy_;
    case Reply::log_status:
      return shares_log();
    case Reply::status:
    case Reply::value:
    case Reply::value_or_refusal:
      return true;
  }
  return false;
}

// What changes by a request that was done.
template <class Request>
void Remote<Request>::note(const Message& message) {
  if constexpr (std::is_same_v<Request, DeviceRequest>) {
    if (message.id == id_of<DeviceRequest, vhost::PostcopyListen>) postcopy_ = true;
    if (message.id == id_of<DeviceRequest, vhost::PostcopyEnd>) postcopy_ = false;
  }
}

template class Remote<DeviceRequest>;
template class Remote<FrontEndRequest>;

// ---- FrontEndService

Result<std::unique_ptr<FrontEndService>> FrontEndService::start(
    std::shared_ptr<Connection> connection, std::shared_ptr<vhost::FrontEnd> front_end,
    std::shared_ptr<const Negotiated> negotiated) {
  std::unique_ptr<FrontEndService> service(
      new FrontEndService(std::move(connection), std::move(front_end), std::move(negotiated)));
  try {
    service->thread_ = std::thread([self = service.get()] { self->run(); });
  } catch (const std::system_error& error) {
    return os_failure("cannot start a thread for the back-end channel", error.code().value());
  }
  return service;
}

FrontEndService::~FrontEndService() {
  close();
  if (thread_.joinable()) thread_.join();
}

void FrontEndService::run() {
  const Error why = Server<FrontEndRequest>(connection_, *front_end_, *negotiated_).serve();
  if (why.fault != Fault::gone)
    log::warning("{}: back-end channel closed: {}", connection_->options().name, why.to_string());
  ended_ = true;
}

// ---- RemoteDevice

RemoteDevice::RemoteDevice(std::shared_ptr<Connection> connection, std::chrono::milliseconds reply_time_out)
    : connection_(connection),
      remote_(std::move(connection), negotiated_, this, reply_time_out),
      device_(remote_, *negotiated_) {}

RemoteDevice::~RemoteDevice() { close(); }

Result<std::unique_ptr<RemoteDevice>> RemoteDevice::connect(const std::string& path,
                                                            ConnectionOptions options,
                                                            std::chrono::milliseconds reply_time_out) {
  options.name = path;
  UniqueFd fd = TRY(connect_to(path));
  auto connection = TRY(Connection::adopt(std::move(fd), std::move(options)));
  return std::make_unique<RemoteDevice>(std::move(connection), reply_time_out);
}

Result<vhost::DeviceReply> RemoteDevice::handle(DeviceRequest request) {
  const std::scoped_lock lock(mutex_);
  // Some requests are answered without asking the peer.
  if (remote_.is_broken()) return gone(closed_after_error);
  Result<vhost::DeviceReply> reply = device_.handle(std::move(request));
  settle_front_end(reply.has_value());
  return reply;
}

Result<SocketFeatures> RemoteDevice::offered_by_socket() {
  const std::scoped_lock lock(mutex_);
  return device_.offered_by_socket();
}

// The old front-end stays if the back-end has refused the new one. The thread of the one that goes may be
// waiting for us, so it is only closed, and joined once it has ended.
void RemoteDevice::settle_front_end(bool accepted) {
  if (offered_ == nullptr) return;
  if (accepted) std::swap(front_end_, offered_);
  std::erase_if(retired_, [](const auto& service) { return service->ended(); });
  if (offered_ == nullptr) return;
  offered_->close();
  retired_.push_back(std::move(offered_));
}

Result<std::shared_ptr<vhost::FrontEnd>> RemoteDevice::reach(UniqueFd) {
  return refused("a front-end has no front-end to reach");
}

Result<UniqueFd> RemoteDevice::serve(std::shared_ptr<vhost::FrontEnd> front_end) {
  std::array<UniqueFd, 2> ends = TRY(socket_pair());
  auto connection = TRY(Connection::adopt(std::move(ends[0]), connection_->options()));
  offered_ = TRY(FrontEndService::start(std::move(connection), std::move(front_end), negotiated_));
  return std::move(ends[1]);
}

}  // namespace ringway::user
