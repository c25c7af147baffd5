// FilePool: threads that carry out file requests where io_uring may not. One pool for all loops of the
// process; its threads come with the first requests and end with the last loop. Any thread.
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
  Stack<FileJob>* home = nullptr;        // where the job goes when it is done
  std::shared_ptr<Doorbell> doorbell{};  // rung then
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

// Blocks. Bytes or 0, or a negative errno.
int64_t carry_out(const FileRequest& request);

}  // namespace ringway::loop
