// Trace: a decorator that tells of every request that passes and how it was answered, and changes nothing.
// For tests and programs that hold both ends; what passes a socket is traced as it is by `ringway trace`. As
// many threads as the handler behind it takes: the observer is called on the thread of each request.
#pragma once

#include <chrono>
#include <functional>
#include <utility>

#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost {

template <class Request>
class Trace final : public Handler<Request> {
 public:
  using Clock = std::chrono::steady_clock;
  struct Observer {
    std::function<void(const Request&)> asked;  // before it is passed on; may be empty
    std::function<void(const RequestInfo&, const Result<ReplyOf<Request>>&, Clock::duration)>
        answered;  // likewise
  };

  // `next` outlives it.
  Trace(Handler<Request>& next, Observer observer) : next_(next), observer_(std::move(observer)) {}

  Result<ReplyOf<Request>> handle(Request request) override {
    const RequestInfo& info = info_of(request);
    if (observer_.asked) observer_.asked(request);
    const Clock::time_point begin = Clock::now();
    Result<ReplyOf<Request>> reply = next_.handle(std::move(request));
    if (observer_.answered) observer_.answered(info, reply, Clock::now() - begin);
    return reply;
  }

 private:
  Handler<Request>& next_;
  const Observer observer_;
};

}  // namespace ringway::vhost
