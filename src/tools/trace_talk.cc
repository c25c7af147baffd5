#include "ringway/tools/trace_talk.h"

#include <algorithm>
#include <cstring>

namespace ringway::tools {
namespace {

using vhost::DeviceRequest;

template <class Request>
constexpr uint32_t id = user::id_of<DeviceRequest, Request>;

}  // namespace

std::optional<uint64_t> u64_of(std::span<const std::byte> payload) {
  uint64_t value = 0;
  if (payload.size() != sizeof value) return std::nullopt;
  std::memcpy(&value, payload.data(), sizeof value);
  return value;
}

std::optional<Talk::Asked> Talk::follow(SeenMessage& message) {
  if (!message.has_header()) return std::nullopt;
  std::optional<Asked> answered;
  if (message.is_reply()) {
    answered = match(message);
  } else {
    remember(message);
  }
  if (message.complete && message.channel == Channel::main) learn(message);
  return answered;
}

// The oldest request of this name that has no reply. Older ones that need none will get none.
std::optional<Talk::Asked> Talk::match(SeenMessage& message) {
  std::deque<Asked>& all = open(message.channel);
  const auto found = std::ranges::find(all, message.header().request, &Asked::id);
  if (found == all.end()) return std::nullopt;
  const Asked asked = *found;
  message.answers = asked.number;
  message.reply_time = message.began - asked.when;
  const auto kept = std::remove_if(all.begin(), found, [](const Asked& one) { return !one.reply_due; });
  all.erase(kept, found + 1);
  return asked;
}

void Talk::remember(const SeenMessage& message) {
  std::deque<Asked>& all = open(message.channel);
  const auto optional = std::ranges::find(all, false, &Asked::reply_due);
  if (all.size() >= max_open) all.erase(optional != all.end() ? optional : all.begin());
  all.push_back({.number = message.number,
                 .id = message.header().request,
                 .name = message.name(),
                 .channel = message.channel,
                 .when = message.ended,
                 .reply_due = is_reply_due(message),
                 .parts = {}});
}

bool Talk::is_reply_due(const SeenMessage& message) const {
  const bool acks = agreed_.has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
  const bool wants_ack = message.header().needs_reply() && acks;
  const user::Message* const row = message.row();
  if (!message.complete || row == nullptr) return false;
  switch (row->reply) {
    case user::Reply::ack:
      return wants_ack;
    case user::Reply::memory:
      return wants_ack || (postcopy_ && !message.fds.empty());
    case user::Reply::log_status:
      return wants_ack || agreed_.has_capability(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD);
    case user::Reply::status:
    case user::Reply::value:
    case user::Reply::value_or_refusal:
      return true;
  }
  return false;
}

// What is set counts as agreed on: a front-end that is refused leaves.
void Talk::learn(const SeenMessage& message) {
  const uint32_t request = message.header().request;
  const std::optional<uint64_t> value = u64_of(message.payload());
  if (!message.is_reply()) {
    if (value && request == id<vhost::SetFeatures>) {
      agreed_.features = *value;
      features_set_ = true;
    }
    if (value && request == id<vhost::SetProtocolFeatures>) agreed_.capabilities = *value;
    if (request == id<vhost::SetOwner>) has_owner_ = true;
    if (request == id<vhost::PostcopyListen>) postcopy_ = true;
    if (request == id<vhost::PostcopyEnd>) postcopy_ = false;
    return;
  }
  if (value && request == id<vhost::GetFeatures>) offered_features_ = value;
  if (value && request == id<vhost::GetProtocolFeatures>) offered_protocol_ = value;
  if (type_is_given_ || !offered_features_) return;
  const auto possible = possible_types(*offered_features_, offered_protocol_.value_or(0));
  type_ = possible.empty() ? nullptr : possible.front();
}

}  // namespace ringway::tools
