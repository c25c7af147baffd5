#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ringway/loop/file_pool.h"
#include "ringway/loop/loop_testing.h"

namespace ringway::loop {
namespace {

using namespace testing;
using Operation = FileRequest::Operation;

UniqueFd temporary_file() {
  UniqueFd fd(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  EXPECT_TRUE(fd);
  return fd;
}

struct Request : FileRequest {
  explicit Request(FileRequest request) : FileRequest(request) {
    done = [](FileRequest& self, int64_t value) { static_cast<Request&>(self).finish(value); };
  }
  void finish(int64_t value) {
    result = value;
    if (then) then();
    ended = true;  // the test may destroy it now
  }
  std::atomic<bool> ended = false;
  int64_t result = 0;
  std::function<void()> then;
};

class FileTransfers {
 protected:
  // Submits and waits.
  static int64_t carry_out(Loop& loop, FileRequest values) {
    Request request(values);
    loop.run([&] { loop.submit(request); });
    EXPECT_TRUE(eventually([&] { return request.ended.load(); }));
    return request.result;
  }
  static int64_t transfer(Loop& loop, Operation operation, int fd, std::string& bytes, uint64_t offset) {
    const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
    return carry_out(loop, {.operation = operation, .fd = fd, .pieces = {&piece, 1}, .offset = offset});
  }
};

class FileRequestTest : public LoopTest, protected FileTransfers {};
RINGWAY_BOTH_POLLERS(FileRequestTest);
class FilePoolTest : public ::testing::Test, protected FileTransfers {};

TEST_P(FileRequestTest, WhatIsWrittenIsRead) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  std::string out = "hello";
  EXPECT_EQ(transfer(*loop, Operation::write, fd.get(), out, 1000), 5);
  std::string in(5, '-');
  EXPECT_EQ(transfer(*loop, Operation::read, fd.get(), in, 1000), 5);
  EXPECT_EQ(in, out);
}

TEST_P(FileRequestTest, PiecesAreGatheredAndScattered) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  std::string head = "abc";
  std::string tail = "defgh";
  const std::array<iovec, 2> out = {{{head.data(), head.size()}, {tail.data(), tail.size()}}};
  EXPECT_EQ(carry_out(*loop, {.operation = Operation::write, .fd = fd.get(), .pieces = out}), 8);
  std::string first(6, '-');
  std::string second(2, '-');
  const std::array<iovec, 2> in = {{{first.data(), first.size()}, {second.data(), second.size()}}};
  EXPECT_EQ(carry_out(*loop, {.operation = Operation::read, .fd = fd.get(), .pieces = in}), 8);
  EXPECT_EQ(first + second, "abcdefgh");
}

TEST_P(FileRequestTest, AReadAtTheEndIsShort) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  std::string text = "0123456789";
  ASSERT_EQ(transfer(*loop, Operation::write, fd.get(), text, 0), 10);
  EXPECT_EQ(transfer(*loop, Operation::read, fd.get(), text, 7), 3);
  EXPECT_EQ(transfer(*loop, Operation::read, fd.get(), text, 10), 0);
}

TEST_P(FileRequestTest, ErrorsAreNegativeErrnos) {
  auto loop = start();
  std::string text = "x";
  EXPECT_EQ(transfer(*loop, Operation::read, -1, text, 0), -EBADF);
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(transfer(*loop, Operation::write, full.get(), text, 0), -ENOSPC);
  EXPECT_EQ(transfer(*loop, Operation::read, full.get(), text, 0), -EBADF);
  EXPECT_EQ(carry_out(*loop, {.operation = Operation::sync, .fd = -1}), -EBADF);
  EXPECT_LT(carry_out(*loop, {.operation = Operation::allocate, .fd = full.get(), .length = 1}), 0);
}

TEST_P(FileRequestTest, SyncAndAllocateWork) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  EXPECT_EQ(
      carry_out(*loop, {.operation = Operation::allocate, .fd = fd.get(), .offset = 4096, .length = 8192}),
      0);
  struct stat status{};
  ASSERT_EQ(::fstat(fd.get(), &status), 0);
  EXPECT_EQ(status.st_size, 12288);
  EXPECT_GT(status.st_blocks, 0);
  constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  EXPECT_EQ(
      carry_out(*loop, {.operation = Operation::allocate, .fd = fd.get(), .length = 12288, .flags = punch}),
      0);
  ASSERT_EQ(::fstat(fd.get(), &status), 0);
  EXPECT_EQ(status.st_size, 12288);
  EXPECT_EQ(status.st_blocks, 0);
  EXPECT_EQ(carry_out(*loop, {.operation = Operation::sync, .fd = fd.get()}), 0);
  EXPECT_EQ(carry_out(*loop, {.operation = Operation::sync, .fd = fd.get(), .flags = 1}), 0);
}

TEST_P(FileRequestTest, WhatIsNoBlockDeviceHasNoRangesToControl) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  EXPECT_EQ(
      carry_out(*loop, {.operation = Operation::control, .fd = fd.get(), .length = 512, .flags = BLKDISCARD}),
      -ENOTTY);
  EXPECT_EQ(carry_out(*loop, {.operation = Operation::control, .fd = -1, .length = 512, .flags = BLKDISCARD}),
            -EBADF);
}

TEST_P(FileRequestTest, MoreRequestsThanAnyQueueHoldsMayBeSubmittedInOneTurn) {
  constexpr size_t count = 10'000;
  auto loop = start();
  const UniqueFd fd = temporary_file();
  std::vector<std::unique_ptr<Request>> requests;
  std::vector<uint64_t> values(count);
  std::vector<iovec> pieces(count);
  for (const Operation operation : {Operation::write, Operation::read}) {
    requests.clear();
    for (size_t i = 0; i < count; ++i) {
      if (operation == Operation::write) values[i] = i * 7;
      pieces[i] = {&values[i], sizeof values[i]};
      requests.push_back(std::make_unique<Request>(
          FileRequest{.operation = operation, .fd = fd.get(), .pieces = {&pieces[i], 1}, .offset = i * 8}));
    }
    loop->run([&] {
      for (auto& request : requests) loop->submit(*request);
    });
    ASSERT_TRUE(
        eventually([&] { return std::ranges::all_of(requests, [](auto& r) { return r->ended.load(); }); }));
    for (const auto& request : requests) ASSERT_EQ(request->result, 8);
    if (operation == Operation::write) std::ranges::fill(values, 0);
  }
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(values[i], i * 7);
}

TEST_P(FileRequestTest, ARequestMaySubmitAnotherWhenItIsDone) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  const std::string text = "abcd";
  const iovec piece{const_cast<char*>(text.data()), text.size()};
  Request request({.operation = Operation::write, .fd = fd.get(), .pieces = {&piece, 1}});
  std::atomic<int> rounds = 0;
  request.then = [&] {
    ASSERT_EQ(request.result, 4);
    request.offset += 4;
    if (++rounds < 1000) loop->submit(request);
  };
  loop->run([&] { loop->submit(request); });
  EXPECT_TRUE(eventually([&] { return rounds == 1000; }));
  struct stat status{};
  ASSERT_EQ(::fstat(fd.get(), &status), 0);
  EXPECT_EQ(status.st_size, 4000);
}

TEST_P(FileRequestTest, CompletionsComeBeforeTheEndOfTheirTurn) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  struct Check final : Deferred {
    std::atomic<bool> called = false;
    void end_of_turn() override { called = true; }
  } check;
  Request request({.operation = Operation::sync, .fd = fd.get()});
  request.then = [&] { loop->at_end_of_turn(check); };
  loop->run([&] { loop->submit(request); });
  EXPECT_TRUE(eventually([&] { return check.called.load(); }));
}

// A read of an empty pipe stays under way for as long as we like, and so does a write to a full one.
class PendingWrite {
 public:
  PendingWrite() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
    const std::vector<char> all(static_cast<size_t>(::fcntl(ends[1], F_GETPIPE_SZ)));
    EXPECT_EQ(::write(ends[1], all.data(), all.size()), static_cast<ssize_t>(all.size()));
    request.operation = Operation::write;
    request.fd = ends[1];
    request.pieces = {&piece_, 1};
    request.offset = ~0ULL;
  }
  void end() {
    std::vector<char> some(1 << 16);
    ASSERT_GT(::read(reader_.get(), some.data(), some.size()), 0);
  }
  Request request{FileRequest{}};

 private:
  UniqueFd reader_;
  UniqueFd writer_;
  char byte_ = 0;
  iovec piece_{&byte_, 1};
};

class PendingRead {
 public:
  PendingRead() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
    request.fd = ends[0];
    request.pieces = {&piece_, 1};
    request.offset = ~0ULL;
  }
  void end() { ASSERT_EQ(::write(writer_.get(), "x", 1), 1); }
  Request request{FileRequest{}};

 private:
  UniqueFd reader_;
  UniqueFd writer_;
  char byte_ = 0;
  iovec piece_{&byte_, 1};
};

TEST_P(FileRequestTest, ARequestUnderWayDoesNotKeepTheLoopAwake) {
  auto loop = start();
  CountingSource source;
  PendingRead read;
  loop->run([&] {
    loop->add(source);
    loop->submit(read.request);
  });
  ASSERT_TRUE(eventually([&] { return source.parked.load(); }));
  expect_asleep(*loop);
  EXPECT_FALSE(read.request.ended);
  read.end();
  EXPECT_TRUE(eventually([&] { return read.request.ended.load(); }));
  EXPECT_EQ(read.request.result, 1);
  loop->run([&] { loop->remove(source); });
}

TEST_P(FileRequestTest, ASlowRequestDoesNotHoldUpOthers) {
  auto loop = start();
  const UniqueFd fd = temporary_file();
  PendingRead read;
  loop->run([&] { loop->submit(read.request); });
  std::string text = "quick";
  for (int i = 0; i < 100; ++i) EXPECT_EQ(transfer(*loop, Operation::write, fd.get(), text, 0), 5);
  EXPECT_FALSE(read.request.ended);
  read.end();
  EXPECT_TRUE(eventually([&] { return read.request.ended.load(); }));
}

TEST_P(FileRequestTest, TheLoopEndsOnlyWhenItsRequestsHave) {
  auto loop = start();
  PendingRead read;
  loop->run([&] { loop->submit(read.request); });
  std::atomic<bool> gone = false;
  std::jthread destroyer([&] {
    loop.reset();
    gone = true;
  });
  std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(gone);
  read.end();
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
  EXPECT_TRUE(read.request.ended);
}

TEST_P(FileRequestTest, CompletionsReachALoopThatIsKeptBusy) {
  auto loop = start(Polling::always);
  CountingSource source;
  const UniqueFd fd = temporary_file();
  loop->run([&] { loop->add(source); });
  std::string text = "x";
  for (int i = 0; i < 200; ++i) ASSERT_EQ(transfer(*loop, Operation::write, fd.get(), text, 0), 1);
  loop->run([&] { loop->remove(source); });
}

// The first CPU that this process may use.
int some_cpu() {
  cpu_set_t set;
  EXPECT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &set)) ++cpu;
  return cpu;
}

// A buffered write is carried out by a thread of the kernel, often on the CPU of the loop that polls for its
// end. A thread that yields to a loop which keeps its CPU waits for a time slice: milliseconds.
TEST_P(FileRequestTest, WhileRequestsAreUnderWayAnIdleLoopGivesItsCpuToOthers) {
  auto loop = start_or_fail({.polling = Polling::always, .use_io_uring = GetParam(), .cpu = some_cpu()});
  CountingSource source;
  PendingWrite write;
  loop->run([&] {
    loop->add(source);
    loop->submit(write.request);
  });
  constexpr int enough = 50'000;
  std::atomic<int> yields = 0;
  std::jthread other([&](const std::stop_token& stop) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(some_cpu(), &set);
    EXPECT_EQ(::sched_setaffinity(0, sizeof set, &set), 0);
    for (; !stop.stop_requested() && yields < enough; ++yields) std::this_thread::yield();
  });
  EXPECT_TRUE(eventually([&] { return yields == enough; })) << yields;
  other.request_stop();
  other.join();
  write.end();
  EXPECT_TRUE(eventually([&] { return write.request.ended.load(); }));
  loop->run([&] { loop->remove(source); });
}

TEST_F(FilePoolTest, ItsThreadsDoNotStayOnTheCpuOfALoop) {
  auto loop = start_or_fail({.use_io_uring = false, .cpu = some_cpu()});
  std::string text = "abc";
  const UniqueFd fd = temporary_file();
  EXPECT_EQ(transfer(*loop, Operation::write, fd.get(), text, 0), 3);
  cpu_set_t own;
  ASSERT_EQ(::sched_getaffinity(0, sizeof own, &own), 0);
  size_t seen = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name != "rw-files") continue;
    ++seen;
    cpu_set_t set;
    ASSERT_EQ(::sched_getaffinity(std::stoi(task.path().filename()), sizeof set, &set), 0);
    EXPECT_TRUE(CPU_EQUAL(&set, &own));
  }
  EXPECT_GT(seen, 0U);
}

TEST_F(FilePoolTest, ManyLoopsShareOnePool) {
  std::vector<std::unique_ptr<Loop>> loops;
  const UniqueFd fd = temporary_file();
  for (int i = 0; i < 20; ++i) loops.push_back(start_or_fail({.use_io_uring = false}));
  std::string text = "abc";
  for (auto& loop : loops) EXPECT_EQ(transfer(*loop, Operation::write, fd.get(), text, 0), 3);
  const auto threads = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Threads:")) return std::stoul(line.substr(8));
    }
    return 0UL;
  };
  EXPECT_LE(threads(), 1 + loops.size() + FilePool::max_threads + 2);  // and those of a sanitizer
}

}  // namespace
}  // namespace ringway::loop
