#include "ringway/device/port/pcap.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "ringway/device/port/switch_rig_test.h"

namespace ringway::port {
namespace {

using test::Bytes;
using test::counting;
using test::eventually;
using test::Queues;

class PcapTest : public testing::Test {
 protected:
  ~PcapTest() override { std::filesystem::remove(path_); }
  std::unique_ptr<Port> open(const PcapOptions& options) { return test::value_of(open_pcap(options)); }
  void write(const std::vector<Bytes>& frames) {
    const auto port = open({.write = path_});
    Queues queues(*port, *loop_, 0);
    for (const Bytes& frame : frames) queues.send(frame);
  }
  static Bytes frame(unsigned seed, size_t size = 100) {
    return test::ethernet(broadcast_mac, test::station_mac(seed), counting(size, seed));
  }
  const std::string path_ = testing::TempDir() + "ringway_pcap_" + std::to_string(::getpid());
  std::unique_ptr<loop::Loop> loop_ = loop::testing::start_or_fail({});
};

TEST_F(PcapTest, what_is_written_can_be_played) {
  std::vector<Bytes> frames;
  for (unsigned i = 0; i < 300; ++i) frames.push_back(frame(i, i * 7));
  write(frames);
  const auto port = open({.read = path_});
  Queues queues(*port, *loop_, 0);
  for (const Bytes& one : frames) EXPECT_EQ(queues.next().bytes, one);
  EXPECT_TRUE(queues.is_silent());
}

TEST_F(PcapTest, the_file_is_a_pcap_file_of_ethernet) {
  write({frame(1, 2)});
  std::ifstream file(path_, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  ASSERT_EQ(text.size(), 24U + 16 + 16);
  EXPECT_EQ(text.substr(0, 4), "\x4d\x3c\xb2\xa1");
  EXPECT_EQ(text[20], 1);
  EXPECT_EQ(text[32], 16);
  EXPECT_EQ(text[36], 16);
}

TEST_F(PcapTest, it_is_played_again_and_at_a_rate) {
  write({frame(1), frame(2)});
  const auto port = open({.read = path_, .again = true, .rate = 500});
  const auto begin = std::chrono::steady_clock::now();
  Queues queues(*port, *loop_, 0);
  EXPECT_TRUE(eventually([&] { return queues.received >= 100; }));
  EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(100));
}

TEST_F(PcapTest, a_full_disk_loses_frames_and_counts_them) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "there is no /dev/full here";
  EXPECT_FALSE(open_pcap({.write = "/dev/full"}));
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto port = open({.write = path_});
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    Queues queues(*port, *loop_, 0);
    for (unsigned i = 0; i < 300; ++i) queues.send(frame(i, 2000));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_GT(port->counters()[1].value, 0U) << port->counters()[1].name;
  EXPECT_EQ(port->counters()[0].value + port->counters()[1].value, 300U);
  const auto read = open_pcap({.read = path_});
  EXPECT_EQ(read.has_value(), port->counters()[0].value > 0) << "what is there is whole";
}

TEST_F(PcapTest, files_that_are_no_captures_are_refused) {
  EXPECT_FALSE(open_pcap({.read = "/nowhere"}));
  EXPECT_FALSE(open_pcap({.read = "/"}));
  std::ofstream(path_) << "this is not a capture, though it is long enough to be one";
  EXPECT_FALSE(open_pcap({.read = path_}));
  write({frame(1), frame(2)});
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  const auto port = open({.read = path_});
  Queues queues(*port, *loop_, 0);
  EXPECT_EQ(queues.next().bytes, frame(1));
  EXPECT_TRUE(queues.is_silent()) << "a record that is cut off";
}

}  // namespace
}  // namespace ringway::port
