#include "ringway/engine/page_fetcher.h"

#include <system_error>

#include "ringway/memory/fault_guard.h"
#include "ringway/memory/user_fault.h"

namespace ringway::engine {

Result<std::shared_ptr<PageFetcher>> PageFetcher::start() {
  auto fetcher = std::make_shared<PageFetcher>();
  try {
    for (unsigned i = 0; i < thread_count; ++i)
      fetcher->threads_.emplace_back([self = fetcher.get()] { self->run(); });
  } catch (const std::system_error& error) {
    return os_failure("cannot start threads that wait for pages", error.code().value());
  }
  return fetcher;
}

PageFetcher::~PageFetcher() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void PageFetcher::fetch(std::vector<iovec> pieces, std::function<void()> then) {
  {
    const std::scoped_lock lock(mutex_);
    jobs_.push_back({std::move(pieces), std::move(then)});
  }
  arrived_.notify_one();
}

void PageFetcher::run() {
  memory::FaultGuard::work_on_this_thread();
  std::unique_lock lock(mutex_);
  while (true) {
    arrived_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    memory::fetch_pages(job.pieces);
    job.then();
    lock.lock();
  }
}

}  // namespace ringway::engine
