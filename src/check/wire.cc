#include "ringway/check/wire.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "ringway/user/ancillary.h"

namespace ringway::check {
namespace {

constexpr size_t shown_bytes = 48;

uint64_t u64_of(const user::Frame& frame) {
  uint64_t value = 0;
  std::memcpy(&value, frame.payload.data(), sizeof value);
  return value;
}

}  // namespace

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (size_t i = 0; i < std::min(bytes.size(), shown_bytes); ++i) {
    if (i > 0 && i % 4 == 0) text += ' ';
    text += fmt::format("{:02x}", static_cast<unsigned>(bytes[i]));
  }
  if (bytes.size() > shown_bytes) text += fmt::format(" ... ({} bytes)", bytes.size());
  return text;
}

std::string describe(const user::Frame& frame) {
  const auto* header = reinterpret_cast<const std::byte*>(&frame.header);
  std::string text = fmt::format("{} {}", user::message_name<vhost::DeviceRequest>(frame.header.request),
                                 hex({header, sizeof frame.header}));
  if (!frame.payload.empty()) text += " | " + hex(frame.payload);
  if (!frame.fds.empty()) text += fmt::format(" + {} fd", frame.fds.size());
  return text;
}

void Transcript::add(user::Direction direction, const user::Frame& frame) {
  const std::scoped_lock lock(mutex_);
  lines_.push_back((direction == user::Direction::sent ? "sent " : "received ") + check::describe(frame));
  if (lines_.size() > kept) lines_.pop_front();
}

std::string Transcript::text() const {
  const std::scoped_lock lock(mutex_);
  return fmt::format("{}", fmt::join(lines_, "; "));
}

Result<std::unique_ptr<Wire>> Wire::over(UniqueFd fd, milliseconds patience) {
  UniqueFd raw = TRY(fd.duplicate());
  auto transcript = std::make_shared<Transcript>();
  auto connection = TRY(user::Connection::adopt(
      std::move(fd), {.name = "back-end",
                      .message_time_out = patience,
                      .observer = [transcript](user::Direction direction, const user::Frame& frame) {
                        transcript->add(direction, frame);
                      }}));
  return std::unique_ptr<Wire>(
      new Wire(std::move(connection), std::move(raw), std::move(transcript), patience));
}

user::Frame Wire::frame(uint32_t request, Bytes payload, std::vector<UniqueFd> fds) {
  user::Frame one{
      .header = {.request = request, .flags = user::version, .size = static_cast<uint32_t>(payload.size())}};
  one.payload = std::move(payload);
  one.fds = std::move(fds);
  return one;
}

Result<> Wire::send(const user::Frame& frame) {
  return connection_->send(frame, user::Connection::Clock::now() + patience_);
}

Result<> Wire::send_raw(std::span<const std::byte> bytes, std::span<const UniqueFd> fds) {
  user::Ancillary ancillary;
  iovec whole{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  ancillary.attach(message, fds);
  const ssize_t sent = ::sendmsg(raw_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent != static_cast<ssize_t>(bytes.size())) return os_failure("cannot send");
  return {};
}

Result<user::Frame> Wire::receive() {
  return connection_->receive(user::Connection::Clock::now() + patience_);
}

bool Wire::stirs(milliseconds within) const {
  pollfd entry{.fd = raw_.get(), .events = POLLIN | POLLRDHUP, .revents = 0};
  return ::poll(&entry, 1, static_cast<int>(within.count())) == 1;
}

Result<uint64_t> Wire::ask_u64(uint32_t request, Bytes payload) {
  const user::Frame reply = TRY(ask(request, std::move(payload)));
  if (reply.header.request != request)
    return violation("a reply to another request came", reply.header.request);
  if (reply.payload.size() != sizeof(uint64_t))
    return violation("not a reply of 8 bytes", reply.payload.size());
  return u64_of(reply);
}

Result<uint64_t> Wire::ack(uint32_t request, Bytes payload, std::vector<UniqueFd> fds) {
  user::Frame one = frame(request, std::move(payload), std::move(fds));
  one.header.flags |= user::need_reply_flag;
  TRY(send(one));
  const user::Frame reply = TRY(receive());
  if (reply.header.request != request)
    return violation("a reply to another request came", reply.header.request);
  if (reply.payload.size() != sizeof(uint64_t))
    return violation("not a reply of 8 bytes", reply.payload.size());
  return u64_of(reply);
}

Result<> Wire::greet(uint64_t wanted_protocol) {
  features_ = TRY(ask_u64(id<vhost::GetFeatures>));
  if ((features_ & vhost::bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES)) != 0) {
    offered_ = TRY(ask_u64(id<vhost::GetProtocolFeatures>));
    agreed_ = offered_ & wanted_protocol;
    TRY(send(id<vhost::SetProtocolFeatures>, payload(agreed_)));
  }
  return send(id<vhost::SetOwner>);
}

}  // namespace ringway::check
