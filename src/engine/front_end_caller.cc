#include "ringway/engine/front_end_caller.h"

#include <algorithm>
#include <system_error>

#include "ringway/base/log.h"
#include "ringway/base/short_slices.h"

namespace ringway::engine {
namespace {

bool same_ring(const auto& a, const auto& b) { return a.ring == b.ring; }

// Notifications that say nothing new while the same one still waits.
bool redundant(const vhost::FrontEndRequest& waiting, const vhost::FrontEndRequest& fresh) {
  if (waiting.index() != fresh.index()) return false;
  if (std::holds_alternative<vhost::ConfigChange>(fresh)) return true;
  if (const auto* call = std::get_if<vhost::VringCall>(&fresh))
    return same_ring(*call, std::get<vhost::VringCall>(waiting));
  if (const auto* err = std::get_if<vhost::VringErr>(&fresh))
    return same_ring(*err, std::get<vhost::VringErr>(waiting));
  return false;
}

}  // namespace

Result<> FrontEndCaller::connect(std::shared_ptr<vhost::FrontEnd> front_end) {
  disconnect();
  front_end_ = std::move(front_end);
  open_ = true;
  try {
    thread_ = std::thread([this] {
      take_short_slices();
      run(*front_end_);
    });
  } catch (const std::system_error& error) {
    disconnect();
    return os_failure("cannot start a thread for the back-end channel", error.code().value());
  }
  return {};
}

void FrontEndCaller::disconnect() {
  {
    const std::scoped_lock lock(mutex_);
    open_ = false;
    waiting_.clear();
  }
  arrived_.notify_one();
  if (thread_.joinable()) thread_.join();
  front_end_.reset();
}

bool FrontEndCaller::wait_until_said(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return said_.wait_until(lock, deadline, [this] { return !calling_ && waiting_.empty(); });
}

void FrontEndCaller::post(vhost::FrontEndRequest request, std::function<void()> refused) {
  {
    const std::scoped_lock lock(mutex_);
    const bool known =
        std::ranges::any_of(waiting_, [&](const auto& other) { return redundant(other.request, request); });
    if (!open_ || known || waiting_.size() >= max_waiting) return;
    waiting_.push_back({std::move(request), std::move(refused)});
  }
  arrived_.notify_one();
}

void FrontEndCaller::run(vhost::FrontEnd& front_end) {
  log::Limited limited;
  while (true) {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [this] { return !open_ || !waiting_.empty(); });
    if (!open_) return;
    Message message = std::move(waiting_.front());
    waiting_.pop_front();
    calling_ = true;
    lock.unlock();
    if (auto reply = front_end.handle(std::move(message.request)); !reply) {
      if (message.refused) message.refused();
      limited.warning("the front-end did not take a message: {}", reply.error().to_string());
    }
    lock.lock();
    calling_ = false;
    said_.notify_all();
  }
}

}  // namespace ringway::engine
