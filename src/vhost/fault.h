// Faulty: a decorator in which things go wrong as they are told to, for tests of what stands in front of it.
// One for each connection, in either direction; as many threads as the handler behind it takes.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost {

struct Mishap {
  enum class Kind : uint8_t {
    delay,  // passed on after `time`
    error,  // not passed on; `error` is the answer
    drop,   // lost: not passed on. A request with nothing to answer seems done; of another the reply does not
            // come, which is noticed after `time`
    disconnect,  // the peer is gone: this request and all that follow are not passed on
  };
  Kind kind = Kind::error;
  std::string request;  // its name in the catalogue; empty: any
  size_t nth = 0;       // the n-th of those, from 1; 0: each of them
  std::chrono::milliseconds time{0};
  Error error{.fault = Fault::refused, .what = "was told to fail"};
};

template <class Request>
class Faulty final : public Handler<Request> {
 public:
  // `next` outlives it. Of several mishaps that meet a request, the first happens.
  Faulty(Handler<Request>& next, std::vector<Mishap> mishaps);
  Result<ReplyOf<Request>> handle(Request request) override;

 private:
  struct Plan {
    Mishap mishap;
    size_t seen = 0;  // requests that it is about
  };
  const Mishap* due(const Request& request);
  Result<ReplyOf<Request>> lose(const Request& request, const Mishap& mishap);

  Handler<Request>& next_;
  std::mutex mutex_;
  std::vector<Plan> plans_;  // their number is fixed
  std::atomic<bool> disconnected_ = false;
};

}  // namespace ringway::vhost
