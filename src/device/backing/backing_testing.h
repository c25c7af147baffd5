// What the tests of backings share: a queue on a loop that carries out requests, buffers, temporary files,
// file systems and block devices of their own.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ringway/base/failing_call_test.h"
#include "ringway/base/unique_fd.h"
#include "ringway/device/backing/backing.h"

namespace ringway::backing::testing {

using namespace std::chrono_literals;

inline bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(100us);
  }
  return true;
}

template <class T>
T value_of(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().to_string();
    std::abort();
  }
  return *std::move(result);
}

// A request that a test waits for.
struct Waited : Request {
  Waited() {
    done = [](Request& self, int value) { static_cast<Waited&>(self).finish(value); };
  }
  void finish(int value) {
    result = value;
    ended = true;
  }
  int result = 1;
  std::atomic<bool> ended = false;
};

// One queue: a lane on a loop of its own.
class Queue {
 public:
  Queue(Backing& backing, bool use_io_uring)
      : loop_(value_of(loop::Loop::start({.polling = loop::Polling::never, .use_io_uring = use_io_uring}))) {
    loop_->run([&] { lane_ = backing.open_lane(*loop_); });
  }
  ~Queue() {
    loop_->run([&] { lane_.reset(); });
  }

  // All in one turn. The caller keeps them until they have ended.
  void submit(std::span<const std::unique_ptr<Waited>> requests) {
    loop_->run([&] {
      for (const auto& request : requests) start(*request);
    });
  }
  // 0, or a negative errno.
  int carry_out(Waited& request) {
    loop_->run([&] { start(request); });
    EXPECT_TRUE(eventually([&] { return request.ended.load(); }));
    return request.result;
  }
  int transfer(Operation operation, uint64_t offset, std::span<const iovec> pieces, bool durable = false) {
    Waited request;
    request.operation = operation;
    request.offset = offset;
    request.pieces = pieces;
    request.durable = durable;
    for (const iovec& piece : pieces) request.length += piece.iov_len;
    return carry_out(request);
  }
  int write(uint64_t offset, const std::string& bytes, bool durable = false) {
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    return transfer(Operation::write, offset, {&piece, 1}, durable);
  }
  int read(uint64_t offset, std::string& bytes) {
    const iovec piece{bytes.data(), bytes.size()};
    return transfer(Operation::read, offset, {&piece, 1});
  }
  int range(Operation operation, uint64_t offset, uint64_t length, bool may_unmap = false) {
    Waited request;
    request.operation = operation;
    request.offset = offset;
    request.length = length;
    request.may_unmap = may_unmap;
    return carry_out(request);
  }
  int flush() { return range(Operation::flush, 0, 0); }

 private:
  void start(Waited& request) {
    if (const auto result = lane_->submit(request)) request.finish(*result);
  }
  std::unique_ptr<loop::Loop> loop_;
  std::unique_ptr<Lane> lane_;
};

// A directory that goes with all that is in it.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& parent = "/var/tmp");  // which is seldom a tmpfs
  ~TemporaryDirectory();
  [[nodiscard]] std::string path(const std::string& name) const { return path_ + "/" + name; }
  // A file of `size` bytes, all of them a hole.
  [[nodiscard]] std::string file(const std::string& name, uint64_t size) const;

 private:
  std::string path_;
};

// A file system mounted on a directory, in a mount namespace of this test alone. Not everybody may: check
// first.
class Mount {
 public:
  Mount(const std::string& directory, const char* type, const char* options);
  ~Mount();
  explicit operator bool() const { return mounted_; }

 private:
  std::string directory_;
  bool mounted_ = false;
};

// A block device over a file. Not everybody may: check first.
class LoopDevice {
 public:
  LoopDevice(const std::string& file, uint32_t block_size, bool read_only = false);
  ~LoopDevice();
  explicit operator bool() const { return static_cast<bool>(fd_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  UniqueFd fd_;
  std::string path_;
};

inline std::string poller_name(bool io_uring) { return io_uring ? "io_uring" : "epoll"; }

}  // namespace ringway::backing::testing
