// FilePool: threads that carry out file requests where io_uring may not, or cannot. One pool for all loops of
// the process; its threads come with the first requests and end with the last loop. Any thread. PoolQueue: a
// loop's way to it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ringway/loop/loop.h"
#include "ringway/loop/mailbox.h"

namespace ringway::loop {

// One request on its way through the pool and back.
struct FileJob {
  FileRequest* request = nullptr;
  int64_t result = 0;
  Stack<FileJob>* home = nullptr;      // where the job goes when it is done
  std::shared_ptr<Doorbell> doorbell;  // rung then
  FileJob* next = nullptr;
};

class FilePool {
 public:
  static constexpr size_t max_threads = 16;

  // The pool of this process; made if nobody holds it.
  static std::shared_ptr<FilePool> shared();
  FilePool() = default;
  ~FilePool();

  // Hands over a list. False, and nothing is handed over, if no thread can be had to work on it.
  bool submit(FileJob* jobs);

 private:
  void work();
  bool add_thread();
  FileJob* pop();

  std::mutex mutex_;
  std::condition_variable more_;
  FileJob* first_ = nullptr;
  FileJob** end_ = &first_;
  size_t queued_ = 0;
  size_t idle_ = 0;  // threads that wait
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

// One loop's requests on their way through the pool and back. The loop's thread.
class PoolQueue {
 public:
  explicit PoolQueue(std::shared_ptr<Doorbell> doorbell) : doorbell_(std::move(doorbell)) {}

  // To be handed over by the next flush().
  void submit(FileRequest& request);
  void flush() {
    if (queued_ != nullptr) hand_over();
  }
  // Something to reap is there. Requests that no thread can be had for are there at once, with EAGAIN.
  [[nodiscard]] bool pending() const { return !finished_.empty(); }
  // Calls done() of all that have ended; false if there are none.
  bool reap();
  [[nodiscard]] size_t in_flight() const { return in_flight_; }

 private:
  void hand_over();
  FileJob* take_job();

  const std::shared_ptr<Doorbell> doorbell_;
  std::shared_ptr<FilePool> pool_;
  size_t in_flight_ = 0;
  FileJob* queued_ = nullptr;  // the newest first
  Stack<FileJob> finished_;
  std::vector<std::unique_ptr<FileJob>> jobs_;
  FileJob* free_jobs_ = nullptr;
};

// Blocks. Bytes or 0, or a negative errno.
int64_t carry_out(const FileRequest& request);

}  // namespace ringway::loop
