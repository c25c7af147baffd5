// UserFault: memory whose pages come later, from another host (postcopy). A userfaultfd that belongs to the
// front-end as well: who touches a page that has not come waits until the front-end has put it there. One
// thread, but for end(). vhost-user "Migration", POSTCOPY_ADVISE.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/memory/map.h"

namespace ringway::memory {

class UserFault {
 public:
  // Where only the faults of programs may be handled, and not the kernel's own, it does with that: then pages
  // must be fetched (see fetch_pages) before the kernel is given them.
  static Result<UserFault> open();

  [[nodiscard]] Result<UniqueFd> for_front_end() const { return fd_.duplicate(); }
  // Accesses to the region wait from here on. It must be a mapping of ours, which nobody has touched yet.
  Result<> watch(std::shared_ptr<const Region> region);
  // Accesses do not wait any more, and those that do go on: what has not come reads as zeros.
  void end();

 private:
  explicit UserFault(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
  std::vector<std::shared_ptr<const Region>> regions_;
};

// Whether all pages of the pieces are here, without touching any. Of huge pages only those are seen that were
// touched before.
[[nodiscard]] bool pages_are_here(std::span<const iovec> pieces);
// Reads a byte of every page, and so waits until all are here. Not on a thread that others wait for.
void fetch_pages(std::span<const iovec> pieces);

}  // namespace ringway::memory
