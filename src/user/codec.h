// Codec: requests and replies as values to frames and back, for both channels, driven by the tables of
// message.h. Any thread. Errors are about the message by name; a failed decode has closed everything that
// came with the frame.
#pragma once

#include <memory>
#include <optional>

#include "ringway/user/frame.h"
#include "ringway/user/message.h"
#include "ringway/vhost/handler.h"

namespace ringway::user {

// SET_BACKEND_REQ_FD carries a socket where the request carries a handler: turns one into the other.
class BackChannel {
 public:
  virtual ~BackChannel() = default;
  // A front-end that is asked over `fd`.
  virtual Result<std::shared_ptr<vhost::FrontEnd>> reach(UniqueFd fd) = 0;
  // A socket over which `front_end` is asked.
  virtual Result<UniqueFd> serve(std::shared_ptr<vhost::FrontEnd> front_end) = 0;
};

// `back_channel` may be null: SET_BACKEND_REQ_FD is then refused.
template <class Request>
Result<Frame> encode(Request request, BackChannel* back_channel = nullptr);
template <class Request>
Result<Request> decode(Frame frame, BackChannel* back_channel = nullptr);

// What a reply is compared with: the parts of a request that come back in its reply.
struct Asked {
  uint32_t ring = 0;
  uint32_t config_offset = 0;
  uint32_t config_size = 0;
};
template <class Request>
Asked asked(const Request& request);

template <class Request>
Result<Frame> encode_reply(const Message& message, vhost::ReplyOf<Request> reply);
// A u64 of an acknowledgement.
Frame encode_status(const Message& message, bool success);
// The reply that says no; nothing if the message has none.
template <class Request>
std::optional<Frame> encode_refusal(const Message& message);

// Fault `refused`: the reply is well-formed and says no. `violation`: it is no reply to `message`.
template <class Request>
Result<vhost::ReplyOf<Request>> decode_reply(const Message& message, const Asked& asked, Frame frame);

}  // namespace ringway::user
