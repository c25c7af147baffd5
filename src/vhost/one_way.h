// OneWay: what a handler may be besides: able to take a request whose answer nobody wants, without waiting
// for one. Those that only pass requests on are; others are asked as ever. As many threads as the handler.
#pragma once

#include <utility>

#include "ringway/vhost/handler.h"

namespace ringway::vhost {

template <class Request>
class OneWay {
 public:
  virtual ~OneWay() = default;
  // Returns when it is passed on. A refusal may not be seen.
  virtual Result<> tell(Request request) = 0;
};

template <class Request>
Result<> tell(Handler<Request>& handler, Request request) {
  if (auto* one_way = dynamic_cast<OneWay<Request>*>(&handler)) return one_way->tell(std::move(request));
  TRY(handler.handle(std::move(request)));
  return {};
}

}  // namespace ringway::vhost
