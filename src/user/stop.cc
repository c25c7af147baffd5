#include "ringway/user/stop.h"

#include <poll.h>

namespace ringway::user {

Result<std::shared_ptr<Stop>> Stop::make() {
  UniqueFd event = TRY(make_eventfd());
  return std::shared_ptr<Stop>(new Stop(std::move(event)));
}

void Stop::request() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

bool Stop::requested() const {
  pollfd entry{.fd = event_.get(), .events = POLLIN};
  return ::poll(&entry, 1, 0) == 1;
}

}  // namespace ringway::user
