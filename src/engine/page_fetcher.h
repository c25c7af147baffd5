// PageFetcher: threads that wait for pages which come from another host (postcopy), so that no worker does.
// Any thread.
#pragma once

#include <sys/uio.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ringway/base/result.h"

namespace ringway::engine {

class PageFetcher {
 public:
  // As many chains can wait for pages at once; others wait for them.
  static constexpr unsigned thread_count = 16;

  static Result<std::shared_ptr<PageFetcher>> start();
  PageFetcher() = default;
  PageFetcher(const PageFetcher&) = delete;
  PageFetcher& operator=(const PageFetcher&) = delete;
  // Waits for all that was asked for: the pages must have come, or have been given up (UserFault::end).
  ~PageFetcher();

  // Calls `then` on a thread of its own when all pages of the pieces are here. The pieces must stay mapped
  // until then.
  void fetch(std::vector<iovec> pieces, std::function<void()> then);

 private:
  struct Job {
    std::vector<iovec> pieces;
    std::function<void()> then;
  };
  void run();
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Job> jobs_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace ringway::engine
