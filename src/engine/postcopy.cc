#include "ringway/engine/postcopy.h"

namespace ringway::engine {

Result<std::unique_ptr<Postcopy>> Postcopy::advise() {
  return std::unique_ptr<Postcopy>(new Postcopy(TRY(memory::UserFault::open())));
}

Result<> Postcopy::listen(const memory::Map& map) {
  auto fetcher = TRY(PageFetcher::start());
  TRY(watch(map));
  waits_for_front_end_ = false;
  fetcher_ = std::move(fetcher);
  return {};
}

Result<> Postcopy::watch(const memory::Map& map) {
  const std::scoped_lock lock(mutex_);
  if (given_up_) return gone("the front-end left");
  for (const auto& region : map.regions()) TRY(user_fault_.watch(region));
  waits_for_front_end_ = true;
  return {};
}

void Postcopy::give_up() {
  const std::scoped_lock lock(mutex_);
  given_up_ = true;
  user_fault_.end();
}

}  // namespace ringway::engine
