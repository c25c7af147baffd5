#include "ringway/tools/trace_sink.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "ringway/base/quiet_write.h"

namespace ringway::tools {
namespace {

constexpr int look_again_after = 100;  // milliseconds, for the end while a reader takes nothing

}  // namespace

TraceSink::TraceSink(UniqueFd fd, std::string name, std::function<void(const std::string&)> on_failure)
    : fd_(std::move(fd)),
      name_(std::move(name)),
      on_failure_(std::move(on_failure)),
      thread_([this] { run(); }) {}

TraceSink::~TraceSink() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void TraceSink::put(std::string record) {
  const std::scoped_lock lock(mutex_);
  if (failed_) return;
  if (waiting_bytes_ + record.size() > max_waiting) {
    if (!std::exchange(dropped_, true)) on_failure_(name_ + " takes too little: some of the trace is lost");
    return;
  }
  waiting_bytes_ += record.size();
  waiting_.push_back(std::move(record));
  changed_.notify_all();
}

bool TraceSink::has_failed() const {
  const std::scoped_lock lock(mutex_);
  return failed_ || dropped_;
}

bool TraceSink::is_idle() const {
  const std::scoped_lock lock(mutex_);
  return failed_ || (waiting_.empty() && !writing_);
}

bool TraceSink::flush(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  const bool in_time =
      changed_.wait_for(lock, patience, [this] { return failed_ || (waiting_.empty() && !writing_); });
  return in_time && !failed_ && !dropped_;
}

void TraceSink::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || (!waiting_.empty() && !failed_); });
    if (waiting_.empty() || failed_) return;  // ending
    const std::string record = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= record.size();
    writing_ = true;
    lock.unlock();
    const bool written = write(record);
    lock.lock();
    writing_ = false;
    if (!written) failed_ = true;
    changed_.notify_all();
  }
}

// False: nothing can be written any more, which has been said.
bool TraceSink::write(const std::string& record) {
  size_t done = 0;
  while (done < record.size()) {
    pollfd entry{.fd = fd_.get(), .events = POLLOUT};
    if (::poll(&entry, 1, look_again_after) == 0) {
      const std::scoped_lock lock(mutex_);
      if (ending_) return false;
      continue;
    }
    // More than this a pipe that can be written to need not take without blocking.
    const size_t count = std::min<size_t>(record.size() - done, PIPE_BUF);
    const ssize_t written = quiet_write(fd_.get(), std::as_bytes(std::span(record).subspan(done, count)));
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (written < 0) {
      const int error = errno;
      take_back(done);
      on_failure_(fmt::format("cannot write {}: {}", name_, std::strerror(error)));
      return false;
    }
    done += static_cast<size_t>(written);
  }
  return true;
}

// Part of a record at the end would make a file unreadable.
void TraceSink::take_back(size_t part) const {
  struct stat status{};
  if (part == 0 || ::fstat(fd_.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  if (::ftruncate(fd_.get(), status.st_size - static_cast<off_t>(part)) == 0) ::lseek(fd_.get(), 0, SEEK_END);
}

}  // namespace ringway::tools
