#include "ringway/vhost/fault.h"

#include <string_view>
#include <thread>

namespace ringway::vhost {

template <class Request>
Faulty<Request>::Faulty(Handler<Request>& next, std::vector<Mishap> mishaps) : next_(next) {
  for (Mishap& mishap : mishaps) plans_.push_back({std::move(mishap)});
}

template <class Request>
Result<ReplyOf<Request>> Faulty<Request>::handle(Request request) {
  const Mishap* mishap = due(request);
  if (disconnected_) return gone("the peer has closed the connection");
  if (mishap == nullptr) return next_.handle(std::move(request));
  switch (mishap->kind) {
    case Mishap::Kind::delay:
      std::this_thread::sleep_for(mishap->time);
      return next_.handle(std::move(request));
    case Mishap::Kind::error:
      return std::unexpected(mishap->error);
    case Mishap::Kind::drop:
      return lose(request, *mishap);
    case Mishap::Kind::disconnect:
      disconnected_ = true;
      return gone("the peer has closed the connection");
  }
  return next_.handle(std::move(request));
}

// Every mishap counts for itself, whether or not another one happens.
template <class Request>
const Mishap* Faulty<Request>::due(const Request& request) {
  const std::string_view name = info_of(request).name;
  const Mishap* first = nullptr;
  const std::scoped_lock lock(mutex_);
  for (Plan& plan : plans_) {
    if (!plan.mishap.request.empty() && plan.mishap.request != name) continue;
    ++plan.seen;
    const bool now = plan.mishap.nth == 0 || plan.mishap.nth == plan.seen;
    if (now && first == nullptr) first = &plan.mishap;
  }
  return first;
}

template <class Request>
Result<ReplyOf<Request>> Faulty<Request>::lose(const Request& request, const Mishap& mishap) {
  const bool answers_done =
      std::visit([]<class T>(const T&) { return std::is_same_v<typename T::Reply, Done>; }, request);
  if (answers_done) return Done{};
  std::this_thread::sleep_for(mishap.time);
  return violation("no reply came in time");
}

template class Faulty<DeviceRequest>;
template class Faulty<FrontEndRequest>;

}  // namespace ringway::vhost
