// Handler: the one interface of everything that can answer requests. vhost::Device is the device's side of a
// conversation, vhost::FrontEnd the front-end's; they compose (server over engine, server over client,
// decorators between). Thread rule: one call at a time, from any thread, unless an implementation says more.
// handle() returns when it is done.
#pragma once

#include <utility>
#include <variant>

#include "ringway/base/result.h"
#include "ringway/vhost/request.h"

namespace ringway::vhost {

using DeviceReply =
    std::variant<Done, uint64_t, RingState, Capabilities, ConfigBytes, CryptoSession, UniqueFd, InflightArea,
                 StateChannel, SharedObject, ShmemConfig, MemoryTable>;
using FrontEndReply = std::variant<Done, SharedObject>;

template <class Request>
struct ReplyTo;
template <>
struct ReplyTo<DeviceRequest> {
  using type = DeviceReply;
};
template <>
struct ReplyTo<FrontEndRequest> {
  using type = FrontEndReply;
};
template <class Request>
using ReplyOf = typename ReplyTo<Request>::type;

template <class Request>
class Handler {
 public:
  virtual ~Handler() = default;
  // The reply holds the alternative that the request's Reply names; after PostcopyListen, SetMemTable and
  // AddMemReg are answered by a MemoryTable.
  virtual Result<ReplyOf<Request>> handle(Request request) = 0;
};

// call(device, SetVringKick{.ring = 0, .fd = std::move(fd)})
template <class Request, class Alternative>
Result<typename Alternative::Reply> call(Handler<Request>& handler, Alternative request) {
  auto reply = TRY(handler.handle(Request(std::move(request))));
  return std::get<typename Alternative::Reply>(std::move(reply));
}

}  // namespace ringway::vhost
