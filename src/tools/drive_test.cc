// A bench whose back-end does not keep the peace.
#include "ringway/tools/drive.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "ringway/tools/blk_front_end.h"
#include "ringway/tools/blk_job.h"
#include "ringway/tools/served_device.h"

namespace ringway::tools {
namespace {

using namespace std::chrono_literals;

TEST(Drive, H353_calls_without_pause_keep_no_request_from_ending_and_the_drive_from_nothing) {
  std::string folder = std::filesystem::temp_directory_path() / "ringway-drive-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/socket";
  auto workers = engine::Workers::start({.count = 1}).value();
  auto device = ServedDevice::open({.socket_path = path, .null = 1 << 20}, *workers).value();
  auto listener = user::Listener::start().value();
  ASSERT_TRUE(device->attach(*listener));
  auto front_end = BlkFrontEnd::open({.socket = path, .depth = 4}).value();

  BlkJob job(front_end->driver(0), {.blocks = 256}, nullptr);
  Drive drive({{.job = &job, .calls = {&front_end->call_signal(0)}}}, {.interrupts = true});
  std::atomic<bool> over = false;
  std::thread storm([&] {
    const uint64_t one = 1;
    while (!over) (void)!::write(front_end->call_signal(0).fd(), &one, sizeof one);
  });
  drive.start(Phase::measure);
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (drive.finished() < 1000 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
  EXPECT_GE(drive.finished(), 1000U);
  drive.stop();
  while (!drive.at_rest() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(drive.at_rest());
  EXPECT_TRUE(drive.finish());
  EXPECT_EQ(job.counted().failed(), 0U);
  over = true;
  storm.join();
  EXPECT_TRUE(front_end->stop());
  front_end.reset();
  listener->stop();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ringway::tools
