#include "ringway/tools/trace_message.h"

#include <algorithm>
#include <cstring>

namespace ringway::tools {

using vhost::DeviceRequest;
using vhost::FrontEndRequest;

user::Header SeenMessage::header() const {
  user::Header header{.flags = 0};
  if (!bytes.empty()) std::memcpy(&header, bytes.data(), std::min(bytes.size(), sizeof header));
  return header;
}

std::span<const std::byte> SeenMessage::payload() const {
  return std::span(bytes).subspan(std::min(bytes.size(), sizeof(user::Header)));
}

const user::Message* SeenMessage::row() const {
  const uint32_t id = header().request;
  return channel == Channel::main ? user::find_message<DeviceRequest>(id)
                                  : user::find_message<FrontEndRequest>(id);
}

const char* SeenMessage::name() const {
  const uint32_t id = header().request;
  return channel == Channel::main ? user::message_name<DeviceRequest>(id)
                                  : user::message_name<FrontEndRequest>(id);
}

bool SeenMessage::is_known() const { return has_header() && row() != nullptr; }

user::Layout SeenMessage::layout() const {
  const uint32_t id = header().request;
  if (channel == Channel::main)
    return is_reply() ? user::reply_layout<DeviceRequest>(id) : user::request_layout<DeviceRequest>(id);
  return is_reply() ? user::reply_layout<FrontEndRequest>(id) : user::request_layout<FrontEndRequest>(id);
}

}  // namespace ringway::tools
