// Postcopy: what a device has while its memory is coming from another host. Control thread, but for
// give_up(). vhost-user "Migration", POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END.
#pragma once

#include <memory>
#include <mutex>

#include "ringway/engine/page_fetcher.h"
#include "ringway/memory/user_fault.h"

namespace ringway::engine {

class Postcopy {
 public:
  // After POSTCOPY_ADVISE.
  static Result<std::unique_ptr<Postcopy>> advise();
  ~Postcopy() { give_up(); }

  [[nodiscard]] Result<UniqueFd> for_front_end() const { return user_fault_.for_front_end(); }
  // From POSTCOPY_LISTEN on.
  Result<> listen(const memory::Map& map);
  [[nodiscard]] bool listening() const { return fetcher_ != nullptr; }
  // A table whose memory may not be touched until the front-end has acknowledged our addresses.
  Result<> watch(const memory::Map& map);
  [[nodiscard]] bool may_touch() const { return !waits_for_front_end_; }
  void acknowledged() { waits_for_front_end_ = false; }
  [[nodiscard]] const std::shared_ptr<PageFetcher>& fetcher() const { return fetcher_; }
  // Any thread: whoever waits for pages goes on. POSTCOPY_END, when all pages are here; or the front-end has
  // left, and they never will be.
  void give_up();

 private:
  explicit Postcopy(memory::UserFault user_fault) : user_fault_(std::move(user_fault)) {}
  std::mutex mutex_;
  memory::UserFault user_fault_;  // guarded
  bool given_up_ = false;         // guarded
  std::shared_ptr<PageFetcher> fetcher_;
  bool waits_for_front_end_ = false;
};

}  // namespace ringway::engine
