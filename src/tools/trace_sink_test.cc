#include "ringway/tools/trace_sink.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <vector>

namespace ringway::tools {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class TraceSinkTest : public ::testing::Test {
 protected:
  void complain(const std::string& sentence) {
    const std::scoped_lock lock(mutex_);
    said_ += sentence;
  }
  std::string said() {
    const std::scoped_lock lock(mutex_);
    return said_;
  }
  auto complainer() {
    return [this](const std::string& sentence) { complain(sentence); };
  }

 private:
  std::mutex mutex_;
  std::string said_;
};

TEST_F(TraceSinkTest, records_are_written_in_their_order) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  TraceSink sink(UniqueFd(ends[1]), "a pipe", complainer());
  for (int i = 0; i < 10; ++i) sink.put(std::to_string(i));
  EXPECT_TRUE(sink.flush(2s));
  std::array<char, 32> bytes{};
  EXPECT_EQ(::read(reader.get(), bytes.data(), bytes.size()), 10);
  EXPECT_STREQ(bytes.data(), "0123456789");
  EXPECT_FALSE(sink.has_failed());
}

TEST_F(TraceSinkTest, a_full_disk_is_told_in_a_sentence_once) {
  TraceSink sink(UniqueFd(::open("/dev/full", O_WRONLY | O_CLOEXEC)), "trace.pcapng", complainer());
  sink.put("one");
  sink.put("two");
  EXPECT_FALSE(sink.flush(2s));
  EXPECT_TRUE(sink.has_failed());
  EXPECT_TRUE(sink.is_idle());
  EXPECT_EQ(said(), "cannot write trace.pcapng: No space left on device");
}

TEST_F(TraceSinkTest, a_reader_that_takes_nothing_holds_up_nobody) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  {
    TraceSink sink(UniqueFd(ends[1]), "a pipe", complainer());
    const auto begin = std::chrono::steady_clock::now();
    for (size_t i = 0; i < 100; ++i) sink.put(std::string(1 << 20, 'x'));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
    EXPECT_TRUE(sink.has_failed());
    EXPECT_FALSE(sink.flush(50ms));
  }
  EXPECT_THAT(said(), HasSubstr("takes too little"));
}

// The disk is full in the middle of a record.
TEST_F(TraceSinkTest, a_file_ends_with_a_whole_record) {
  char path[] = "/tmp/ringway-sink-XXXXXX";
  UniqueFd fd(::mkstemp(path));
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{.rlim_cur = 2500, .rlim_max = old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  {
    TraceSink sink(std::move(fd), path, complainer());
    for (int i = 0; i < 5; ++i) sink.put(std::string(1000, 'x'));
    EXPECT_FALSE(sink.flush(2s));
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(std::filesystem::file_size(path), 2000U);
  EXPECT_THAT(said(), HasSubstr("cannot write"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace ringway::tools
