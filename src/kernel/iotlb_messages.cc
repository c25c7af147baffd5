#include "ringway/kernel/iotlb_messages.h"

#include <algorithm>
#include <cstring>

namespace ringway::kernel {
namespace {

using vhost::IotlbMessage;

bool same(const IotlbMessage& a, const IotlbMessage& b) {
  return a.iova == b.iova && a.permission == b.permission && a.type == b.type;
}

// Both versions carry the same part at the same place.
constexpr size_t body_at = offsetof(vhost_msg_v2, iotlb);
static_assert(offsetof(vhost_msg, iotlb) == body_at);

}  // namespace

Result<vhost::FrontEndReply> IotlbMessages::handle(vhost::FrontEndRequest request) {
  const auto* fault = std::get_if<vhost::IotlbFault>(&request);
  if (fault == nullptr) return refused("the kernel's interface has no such message");
  const std::scoped_lock lock(mutex_);
  const bool known = std::ranges::any_of(
      messages_, [&](const IotlbMessage& message) { return same(message, fault->message); });
  if (known) return vhost::Done{};
  if (messages_.size() == max_waiting) return refused("nobody reads the device's messages");
  messages_.push_back(fault->message);
  if (messages_.size() == 1 && told_) told_(true);
  return vhost::Done{};
}

void IotlbMessages::on_change(std::function<void(bool)> told) {
  const std::scoped_lock lock(mutex_);
  told_ = std::move(told);
}

bool IotlbMessages::waiting() const {
  const std::scoped_lock lock(mutex_);
  return !messages_.empty();
}

Result<size_t> IotlbMessages::read(std::span<std::byte> to) {
  if (to.size() < size) return 0;
  const std::scoped_lock lock(mutex_);
  if (messages_.empty()) return os_failure("no message waits", EAGAIN);
  const IotlbMessage message = messages_.front();
  messages_.pop_front();
  if (messages_.empty() && told_) told_(false);
  vhost_msg_v2 out{};
  out.type = version_ == 2 ? VHOST_IOTLB_MSG_V2 : VHOST_IOTLB_MSG;
  out.iotlb = {.iova = message.iova.value,
               .size = message.size,
               .uaddr = message.front_end.value,
               .perm = message.permission,
               .type = static_cast<__u8>(message.type)};
  std::memcpy(to.data(), &out, size);
  return size;
}

void IotlbMessages::set_version(unsigned version) {
  const std::scoped_lock lock(mutex_);
  version_ = version;
}

void IotlbMessages::clear() {
  const std::scoped_lock lock(mutex_);
  if (!messages_.empty() && told_) told_(false);
  messages_.clear();
  version_ = 1;
}

Result<IotlbMessage> IotlbMessages::decode(std::span<const std::byte> from) {
  int type = 0;
  if (from.size() < sizeof type) return os_failure("message is too short", EINVAL);
  std::memcpy(&type, from.data(), sizeof type);
  if (type != VHOST_IOTLB_MSG && type != VHOST_IOTLB_MSG_V2) return os_failure("no such message", EINVAL);
  vhost_iotlb_msg body{};
  if (from.size() < body_at + sizeof body) return os_failure("message is too short", EINVAL);
  std::memcpy(&body, from.data() + body_at, sizeof body);
  return IotlbMessage{.iova = {body.iova},
                      .size = body.size,
                      .front_end = {body.uaddr},
                      .permission = body.perm,
                      .type = static_cast<vhost::IotlbType>(body.type)};
}

}  // namespace ringway::kernel
