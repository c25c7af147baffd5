#include "ringway/tools/trace_judge.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <utility>

#include "ringway/base/notifier.h"

namespace ringway::tools {
namespace {

using vhost::bit;
using vhost::DeviceRequest;
using vhost::FrontEndRequest;

constexpr std::chrono::seconds right_after{1};

template <class Request>
constexpr uint32_t id = user::id_of<DeviceRequest, Request>;

// Stands for the front-end in SET_BACKEND_REQ_FD; it is never asked.
class NoFrontEnd final : public vhost::FrontEnd {
  Result<vhost::FrontEndReply> handle(FrontEndRequest) override { return refused("nobody is there"); }
};

class NoBackChannel final : public user::BackChannel {
  Result<std::shared_ptr<vhost::FrontEnd>> reach(UniqueFd) override { return std::make_shared<NoFrontEnd>(); }
  Result<UniqueFd> serve(std::shared_ptr<vhost::FrontEnd>) override { return refused("nobody is there"); }
};

// The message as the codec takes it: with as many file descriptors as came, which are others.
std::optional<user::Frame> frame_of(const SeenMessage& message) {
  const auto payload = message.payload();
  user::Frame frame{.header = message.header(), .payload = {payload.begin(), payload.end()}, .fds = {}};
  for (size_t i = 0; i < message.fds.size(); ++i) {
    Result<UniqueFd> stand_in = make_eventfd();
    if (!stand_in) return std::nullopt;
    frame.fds.push_back(*std::move(stand_in));
  }
  if (frame.fds.size() > user::max_fds) frame.fd_fault = "more than 8 file descriptors";
  return frame;
}

// Of an error of the codec or the contract, which is about this message anyway.
std::string reason(Error error) {
  error.subject = "";
  return error.to_string();
}

double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

bool has_regions(uint32_t request) {
  return request == id<vhost::SetMemTable> || request == id<vhost::AddMemReg> ||
         request == id<vhost::RemMemReg>;
}

// What was not asked for on this connection may have been on another one.
template <class T>
typename T::Reply answer_to(const Talk& talk) {
  if constexpr (std::is_same_v<T, vhost::GetFeatures>) return talk.offered_features().value_or(~uint64_t{0});
  if constexpr (std::is_same_v<T, vhost::GetProtocolFeatures>)
    return {talk.offered_protocol().value_or(~uint64_t{0})};
  return typename T::Reply{};
}

}  // namespace

// Answers as the back-end did, and agrees to everything else.
class Judge::Oracle final : public vhost::Device {
 public:
  explicit Oracle(const Talk& talk) : talk_(talk) {}
  Result<vhost::DeviceReply> handle(DeviceRequest request) override {
    return std::visit([this]<class T>(const T&) -> vhost::DeviceReply { return answer_to<T>(talk_); },
                      request);
  }

 private:
  const Talk& talk_;
};

Judge::Judge(Talk& talk, std::chrono::milliseconds patience)
    : talk_(talk), patience_(patience), oracle_(std::make_unique<Oracle>(talk)) {
  contract_.emplace(*oracle_, vhost::Contract::Limits{});
}
Judge::~Judge() = default;

void Judge::say(const SeenMessage& message, Level level, std::string text) {
  found_.push_back(
      {.number = message.number, .name = message.name(), .level = level, .text = std::move(text)});
}

void Judge::say(Doubt doubt) {
  found_.push_back({.number = doubt.about.number,
                    .name = doubt.about.name,
                    .level = doubt.is_mistake ? Level::mistake : Level::odd,
                    .text = std::move(doubt.text)});
}

std::vector<Finding> Judge::see(const SeenMessage& message, const std::optional<Talk::Asked>& answered) {
  check_frame(message);
  if (message.has_header()) check_flags(message);
  if (message.complete && message.is_reply()) check_reply(message, answered);
  if (message.complete && !message.is_reply() && message.is_known()) check_request(message);
  return std::exchange(found_, {});
}

// ---- what can be said of any message

void Judge::check_frame(const SeenMessage& message) {
  if (message.fds_lost)
    say(message, Level::odd, "file descriptors were lost on the way: this program has too many open");
  const bool late_fds = std::ranges::any_of(message.fds, [](const PassedFd& fd) { return fd.offset > 0; });
  if (late_fds) say(message, Level::odd, "file descriptors came after the first bytes of the message");
  if (message.complete) return;
  const uint64_t whole = sizeof(user::Header) + uint64_t{message.header().size};
  if (!message.has_header()) {
    say(message, Level::mistake, fmt::format("only {} of a header's 12 bytes have come", message.size));
  } else if (message.bytes.size() == SeenMessage::max_kept) {
    say(message, Level::mistake,
        fmt::format("its header announces {} bytes, more than any message has: is this vhost-user?",
                    message.header().size));
  } else {
    say(message, Level::mistake, fmt::format("only {} of its {} bytes have come", message.size, whole));
  }
}

void Judge::check_flags(const SeenMessage& message) {
  const user::Header header = message.header();
  const uint32_t version = header.flags & user::version_mask;
  if (version != user::version)
    return say(message, Level::mistake, fmt::format("version {} instead of 1: is this vhost-user?", version));
  if (message.is_reply() && !header.is_reply())
    say(message, Level::mistake, "a reply without the flag of replies");
  if (!message.is_reply() && header.is_reply())
    say(message, Level::mistake, "a request with the flag of replies");
  if (message.is_reply() && header.is_reply() && header.needs_reply())
    say(message, Level::odd, "a reply that needs a reply: QEMU refuses it");
}

// ---- requests

void Judge::check_request(const SeenMessage& message) {
  // With XEN_MMAP a region has another layout, which nobody here knows.
  if (message.channel == Channel::main && has_regions(message.header().request) &&
      talk_.agreed().has_capability(vhost::VHOST_USER_PROTOCOL_F_XEN_MMAP))
    return rings_.forget_memory();
  if (message.fds_lost) return forget(message);
  std::optional<user::Frame> frame = frame_of(message);
  if (!frame) return forget(message);
  check_need(message);
  if (message.channel == Channel::back_end) {
    auto request = user::decode<FrontEndRequest>(*std::move(frame));
    if (!request) say(message, Level::mistake, reason(request.error()));
    return;
  }
  NoBackChannel channel;
  auto request = user::decode<DeviceRequest>(*std::move(frame), &channel);
  if (!request) return say(message, Level::mistake, reason(request.error()));
  if (auto& open = talk_.open(Channel::main); !open.empty() && open.back().number == message.number)
    open.back().parts = user::asked(*request);
  before_.reset();
  if (contract_) before_.emplace(*contract_);
  rings_before_ = rings_;
  last_request_ = message.number;
  check_negotiation(message);
  for (Doubt& doubt : rings_.see(*request, message, talk_)) say(std::move(doubt));
  ask_contract(message, *std::move(request));
}

// What it has asked for is not known, so nothing is said of what follows from it.
void Judge::forget(const SeenMessage& message) {
  if (message.channel != Channel::main) return;
  if (has_regions(message.header().request)) return rings_.forget_memory();
  rings_.forget_rings();
  contract_.reset();
  last_request_ = 0;
}

// The contract leaves to the server what belongs to the socket, and the back-end channel altogether.
void Judge::check_need(const SeenMessage& message) {
  const uint32_t index = message.header().request - 1;
  const bool is_main = message.channel == Channel::main;
  const vhost::Need need =
      is_main ? vhost::catalogue<DeviceRequest>[index].need : vhost::catalogue<FrontEndRequest>[index].need;
  const bool of_socket =
      need.kind == vhost::Need::Kind::capability && (bit(need.bit) & vhost::transport_protocol_features) != 0;
  if ((!is_main || of_socket) && !talk_.agreed().allows(need))
    say(message, Level::mistake, "was not negotiated");
  if (!is_main && !message.fds.empty() &&
      !talk_.agreed().has_capability(vhost::VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD))
    say(message, Level::mistake, "a file descriptor, and BACKEND_SEND_FD was not negotiated");
}

void Judge::check_negotiation(const SeenMessage& message) {
  const uint32_t request = message.header().request;
  const bool asks_protocol =
      request == id<vhost::GetProtocolFeatures> || request == id<vhost::SetProtocolFeatures>;
  const bool has_bit =
      (talk_.offered_features().value_or(~uint64_t{0}) & bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES)) != 0;
  if (asks_protocol && !has_bit)
    say(message, Level::mistake, "the back-end does not offer protocol features (bit 30)");
  const uint64_t protocol = talk_.offered_protocol().value_or(~uint64_t{0});
  if (request == id<vhost::GetQueueNum> && (protocol & bit(vhost::VHOST_USER_PROTOCOL_F_MQ)) == 0)
    say(message, Level::odd, "the back-end does not offer MQ");
  const vhost::Agreement& agreed = talk_.agreed();
  if (request == id<vhost::SetProtocolFeatures> &&
      agreed.has_capability(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS) &&
      !(agreed.has_capability(vhost::VHOST_USER_PROTOCOL_F_BACKEND_REQ) &&
        agreed.has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK))) {
    say(message, Level::mistake, "INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK");
  }
}

// After an objection to what was negotiated it would object to everything that follows from it.
void Judge::ask_contract(const SeenMessage& message, DeviceRequest request) {
  if (!contract_) return;
  const auto agreed = contract_->handle(std::move(request));
  if (agreed) return;
  say(message, agreed.error().fault == Fault::violation ? Level::mistake : Level::odd,
      reason(agreed.error()));
  const uint32_t what = message.header().request;
  if (what == id<vhost::SetFeatures> || what == id<vhost::SetProtocolFeatures>) contract_.reset();
}

// ---- replies

void Judge::check_reply(const SeenMessage& message, const std::optional<Talk::Asked>& answered) {
  if (!answered) return say(message, Level::mistake, "a reply to nothing that was asked");
  const user::Message* const row = message.row();
  std::optional<user::Frame> frame = frame_of(message);
  if (row == nullptr || !frame || message.fds_lost) return;
  std::optional<Error> error;
  if (message.channel == Channel::main) {
    auto reply = user::decode_reply<DeviceRequest>(*row, answered->parts, *std::move(frame));
    if (!reply) error = reply.error();
  } else {
    auto reply = user::decode_reply<FrontEndRequest>(*row, answered->parts, *std::move(frame));
    if (!reply) error = reply.error();
  }
  if (answered->is_late)
    say(message, Level::odd,
        fmt::format("answered after {:.1f} s", seconds(message.reply_time.value_or(Clock::duration{}))));
  if (!error) return;
  const bool says_no = error->fault == Fault::refused;
  say(message, says_no ? Level::odd : Level::mistake, reason(*error));
  if (says_no) take_back(*answered);
}

// What was refused has not happened.
void Judge::take_back(const Talk::Asked& refused) {
  if (refused.channel != Channel::main || refused.number != last_request_) return;
  if (rings_before_) rings_ = *rings_before_;
  rings_before_.reset();
  contract_.reset();
  if (before_) contract_.emplace(*before_);
}

// ---- what does not come

std::vector<Finding> Judge::late(Clock::time_point now) {
  for (const Channel channel : {Channel::main, Channel::back_end}) {
    for (Talk::Asked& asked : talk_.open(channel)) {
      if (!asked.reply_due || asked.is_late || now - asked.when < patience_) continue;
      asked.is_late = true;
      found_.push_back({.number = asked.number,
                        .name = asked.name,
                        .level = Level::odd,
                        .text = fmt::format("no reply for {:.1f} s", seconds(now - asked.when))});
    }
  }
  return std::exchange(found_, {});
}

std::optional<Judge::Clock::time_point> Judge::next_late() const {
  std::optional<Clock::time_point> first;
  for (const Channel channel : {Channel::main, Channel::back_end}) {
    for (const Talk::Asked& asked : talk_.open(channel)) {
      if (asked.reply_due && !asked.is_late && (!first || asked.when + patience_ < *first))
        first = asked.when + patience_;
    }
  }
  return first;
}

// A front-end may leave whenever it likes.
std::vector<Finding> Judge::end(std::optional<Side> first, Clock::time_point now) {
  if (first == Side::back_end) check_hang_up(now);
  const bool is_cut_off = !found_.empty();
  for (Doubt& doubt : rings_.end(talk_, is_cut_off)) say(std::move(doubt));
  return std::exchange(found_, {});
}

// A back-end that is stopped leaves too, but rarely right after a message.
void Judge::check_hang_up(Clock::time_point now) {
  const std::deque<Talk::Asked>& open = talk_.open(Channel::main);
  const auto add = [this](const Talk::Asked& asked, const char* text) {
    found_.push_back({.number = asked.number, .name = asked.name, .level = Level::odd, .text = text});
  };
  for (const Talk::Asked& asked : open) {
    if (asked.reply_due) add(asked, "the back-end has closed the connection instead of answering");
  }
  if (!open.empty() && !open.back().reply_due && now - open.back().when < right_after)
    add(open.back(), "the back-end has closed the connection: this is the last message that it was sent");
}

}  // namespace ringway::tools
