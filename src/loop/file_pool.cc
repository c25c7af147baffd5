#include "ringway/loop/file_pool.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <system_error>
#include <utility>

#include "ringway/loop/signals.h"

namespace ringway::loop {

namespace {

// The threads belong to all loops, so they do not stay on the CPU of the one that happened to need them
// first.
void use_all_cpus_of_the_process() {
  cpu_set_t set;
  if (::sched_getaffinity(::getpid(), sizeof set, &set) == 0) ::sched_setaffinity(0, sizeof set, &set);
}

}  // namespace

std::shared_ptr<FilePool> FilePool::shared() {
  static std::mutex mutex;
  static std::weak_ptr<FilePool> current;
  const std::scoped_lock lock(mutex);
  std::shared_ptr<FilePool> pool = current.lock();
  if (pool == nullptr) current = pool = std::make_shared<FilePool>();
  return pool;
}

FilePool::~FilePool() {
  {
    const std::scoped_lock lock(mutex_);
    assert(first_ == nullptr);
    stopping_ = true;
  }
  more_.notify_all();
}

bool FilePool::submit(FileJob* jobs) {
  const std::scoped_lock lock(mutex_);
  size_t count = 0;
  for (FileJob* job = jobs; job != nullptr; job = job->next) ++count;
  while (idle_ < queued_ + count && threads_.size() < max_threads && add_thread()) ++idle_;
  if (threads_.empty()) return false;
  *end_ = jobs;
  while (*end_ != nullptr) end_ = &(*end_)->next;
  queued_ += count;
  count == 1 ? more_.notify_one() : more_.notify_all();
  return true;
}

bool FilePool::add_thread() {
  const SignalsBlocked blocked;
  try {
    threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    return false;
  }
  ::pthread_setname_np(threads_.back().native_handle(), "rw-files");
  return true;
}

FileJob* FilePool::pop() {
  std::unique_lock lock(mutex_);
  more_.wait(lock, [this] { return first_ != nullptr || stopping_; });
  if (first_ == nullptr) return nullptr;
  FileJob* job = first_;
  first_ = job->next;
  if (first_ == nullptr) end_ = &first_;
  --queued_;
  --idle_;
  return job;
}

void FilePool::work() {
  use_all_cpus_of_the_process();
  while (FileJob* job = pop()) {
    job->result = carry_out(*job->request);
    const std::shared_ptr<Doorbell> doorbell = std::move(job->doorbell);
    job->home->push(job);
    doorbell->ring();
    const std::scoped_lock lock(mutex_);
    ++idle_;
  }
}

namespace {

int control(const FileRequest& request) {
  std::array<uint64_t, 2> range{request.offset, request.length};
  return ::ioctl(request.fd, static_cast<unsigned long>(request.flags), range.data());
}

}  // namespace

int64_t carry_out(const FileRequest& request) {
  const auto offset = static_cast<off_t>(request.offset);
  const auto count = static_cast<int>(request.pieces.size());
  ssize_t result = 0;
  switch (request.operation) {
    case FileRequest::Operation::read:
      result = ::preadv2(request.fd, request.pieces.data(), count, offset, request.flags);
      break;
    case FileRequest::Operation::write:
      result = ::pwritev2(request.fd, request.pieces.data(), count, offset, request.flags);
      break;
    case FileRequest::Operation::sync:
      result = request.flags != 0 ? ::fdatasync(request.fd) : ::fsync(request.fd);
      break;
    case FileRequest::Operation::allocate:
      result = ::fallocate(request.fd, request.flags, offset, static_cast<off_t>(request.length));
      break;
    case FileRequest::Operation::control:
      result = control(request);
      break;
  }
  return result < 0 ? -errno : result;
}

// ---- PoolQueue

FileJob* PoolQueue::take_job() {
  if (free_jobs_ == nullptr) {
    jobs_.push_back(std::make_unique<FileJob>());
    return jobs_.back().get();
  }
  return std::exchange(free_jobs_, free_jobs_->next);
}

void PoolQueue::submit(FileRequest& request) {
  ++in_flight_;
  FileJob* job = take_job();
  *job = {.request = &request, .home = &finished_, .doorbell = doorbell_, .next = queued_};
  queued_ = job;
}

void PoolQueue::hand_over() {
  if (pool_ == nullptr) pool_ = FilePool::shared();
  FileJob* in_order = nullptr;
  while (queued_ != nullptr) {
    FileJob* job = queued_;
    queued_ = std::exchange(job->next, in_order);
    in_order = job;
  }
  if (pool_->submit(in_order)) return;
  while (in_order != nullptr) {
    FileJob* job = std::exchange(in_order, in_order->next);
    job->result = -EAGAIN;
    finished_.push(job);
  }
}

bool PoolQueue::reap() {
  FileJob* job = finished_.take_all();
  const bool any = job != nullptr;
  while (job != nullptr) {
    FileJob* const ended = std::exchange(job, job->next);
    FileRequest& request = *ended->request;
    const int64_t result = ended->result;
    ended->next = std::exchange(free_jobs_, ended);
    --in_flight_;
    request.done(request, result);
  }
  return any;
}

}  // namespace ringway::loop
