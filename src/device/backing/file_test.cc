#include "ringway/device/backing/file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>

#include "ringway/device/backing/backing_testing.h"
#include "ringway/device/backing/bounce.h"
#include "ringway/device/backing/disk_file.h"
#include "ringway/device/backing/file_lane.h"

namespace ringway::backing {
namespace {

using namespace testing;

std::string refusal(const std::string& path, FileOptions options = {}) {
  const auto backing = open_file(path, options);
  return backing ? "" : backing.error().to_string();
}

uint64_t allocated(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

// Opening.

TEST(FileOpen, OnlyFilesAndBlockDevicesAreDisks) {
  const TemporaryDirectory directory;
  EXPECT_NE(refusal(directory.path("")).find("directory"), std::string::npos);
  EXPECT_NE(refusal("/dev/null").find("neither a regular file nor a block device"), std::string::npos);
  EXPECT_NE(refusal("/dev/full").find("neither"), std::string::npos);
  ASSERT_EQ(::mkfifo(directory.path("fifo").c_str(), 0600), 0);
  EXPECT_NE(refusal(directory.path("fifo")).find("neither"), std::string::npos);
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  directory.path("socket").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_NE(refusal(directory.path("socket")).find("neither"), std::string::npos);
  EXPECT_NE(refusal(directory.path("missing")).find("No such file"), std::string::npos);
}

TEST(FileOpen, OnlyOneMayWriteADisk) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 4096);
  auto writer = value_of(open_file(path, {}));
  EXPECT_NE(refusal(path).find("another process"), std::string::npos);
  EXPECT_NE(refusal(path, {.read_only = true}).find("another process"), std::string::npos);
  writer.reset();
  EXPECT_EQ(refusal(path), "");
}

TEST(FileOpen, ADiskThatIsLetGoOfInAMomentIsWaitedFor) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 4096);
  auto writer = value_of(open_file(path, {}));
  const auto letting_go = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    writer.reset();
  });
  EXPECT_EQ(refusal(path), "");
}

TEST(FileOpen, ManyMayReadADisk) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 4096);
  auto reader = value_of(open_file(path, {.read_only = true}));
  EXPECT_EQ(refusal(path, {.read_only = true}), "");
  EXPECT_NE(refusal(path).find("another process"), std::string::npos);
}

TEST(FileOpen, TheLockOutlivesTheLanes) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 4096);
  auto writer = value_of(open_file(path, {}));
  {
    Queue queue(*writer, true);
  }
  EXPECT_NE(refusal(path), "");
}

TEST(FileOpen, QemuAndWeKeepOutOfEachOthersDisks) {
  if (std::system("qemu-io --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no qemu-io";
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 1 << 20);
  const auto qemu_opens = [&](const std::string& how) {
    return std::system(("qemu-io -f raw " + how + " -c 'read 0 512' " + path + " >/dev/null 2>&1").c_str()) ==
           0;
  };
  EXPECT_TRUE(qemu_opens(""));
  {
    auto writer = value_of(open_file(path, {}));
    EXPECT_FALSE(qemu_opens(""));
    EXPECT_FALSE(qemu_opens("-r"));
  }
  auto reader = value_of(open_file(path, {.read_only = true}));
  EXPECT_FALSE(qemu_opens(""));
  EXPECT_TRUE(qemu_opens("-r"));
  reader.reset();

  // QEMU has it open from its first word on, for as long as its standard input is.
  const std::string said = directory.file("said", 0);
  FILE* qemu = ::popen(("exec qemu-io -f raw " + path + " >" + said + " 2>&1").c_str(), "w");
  ASSERT_NE(qemu, nullptr);
  EXPECT_TRUE(eventually([&] { return std::filesystem::file_size(said) > 0; }));
  EXPECT_NE(refusal(path, {.read_only = true}).find("another process"), std::string::npos);
  EXPECT_NE(refusal(path).find("another process"), std::string::npos);
  ::pclose(qemu);
  EXPECT_EQ(refusal(path), "");
}

TEST(FileOpen, A163_WhatLooksLikeAnImageOfAnotherFormatIsServedAsTheBytesItHas) {
  const TemporaryDirectory directory;
  const std::string secret = directory.file("secret", 4096);
  for (const std::string magic : {"QFI\xfb", "KDMV", "conectix", "vhdxfile", "OOOM", "<<< Oracle VM"}) {
    std::string start = magic + std::string(512 - magic.size(), '\0');
    start.replace(64, secret.size(), secret);  // as the name of a file that lies below
    const std::string path = directory.file("disk", 8192);
    {
      std::fstream file(path);
      file << start;
    }
    auto backing = value_of(open_file(path, {}));
    EXPECT_EQ(backing->capacity(), 8192U);
    Queue disk(*backing, true);
    std::string sector(512, '-');
    EXPECT_EQ(disk.read(0, sector), 0);
    EXPECT_EQ(sector, start);
    EXPECT_EQ(disk.write(0, start), 0) << "what a guest writes makes it no image either";
    EXPECT_TRUE(value_of(backing->refresh()) == false);
    EXPECT_EQ(backing->capacity(), 8192U);
  }
}

TEST(FileOpen, ADirectDiskNeedsAFileSystemThatCan) {
  const TemporaryDirectory directory;
  const Mount mount(directory.path("ram"), "ramfs", "");
  if (!mount) GTEST_SKIP() << "may not mount";
  const std::string path = directory.file("ram/disk", 4096);
  EXPECT_NE(refusal(path, {.direct = true}).find("O_DIRECT"), std::string::npos);
  EXPECT_EQ(refusal(path), "");
}

// Size.

TEST(FileSize, WhatIsLessThanASectorIsLeftOut) {
  const TemporaryDirectory directory;
  auto backing = value_of(open_file(directory.file("disk", 10'000), {}));
  EXPECT_EQ(backing->capacity(), 9728U);
  Queue disk(*backing, true);
  std::string sector(512, '-');
  EXPECT_EQ(disk.read(9216, sector), 0);
  EXPECT_EQ(disk.read(9728, sector), -EINVAL);
}

TEST(FileSize, GrowthIsSeenWhenLookedFor) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 4096);
  auto backing = value_of(open_file(path, {}));
  Queue disk(*backing, true);
  EXPECT_FALSE(value_of(backing->refresh()));
  std::filesystem::resize_file(path, 16'384);
  EXPECT_EQ(disk.write(8192, std::string(512, 'x')), -EINVAL);
  EXPECT_TRUE(value_of(backing->refresh()));
  EXPECT_EQ(backing->capacity(), 16'384U);
  EXPECT_EQ(disk.write(8192, std::string(512, 'x')), 0);
}

// Where files give trouble, with both pollers.
class FileTroubleTest : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Queue> queue(Backing& backing) { return std::make_unique<Queue>(backing, GetParam()); }
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Pollers, FileTroubleTest, ::testing::Bool(),
                         [](const auto& poller) { return poller_name(poller.param); });

TEST_P(FileTroubleTest, ReadsPastTheEndOfAFileThatShrankFail) {
  for (const bool direct : {false, true}) {
    const std::string path = directory_.file("disk", 65'536);
    auto backing = value_of(open_file(path, {.direct = direct}));
    auto disk = queue(*backing);
    ASSERT_EQ(disk->write(0, std::string(65'536, 'x')), 0);
    std::filesystem::resize_file(path, 10'000);
    std::string bytes(4096, '-');
    EXPECT_EQ(disk->read(0, bytes), 0);
    EXPECT_LT(disk->read(8192, bytes), 0);
    EXPECT_LT(disk->read(32'768, bytes), 0);
    std::string all(65'536, '-');
    EXPECT_LT(disk->read(0, all), 0);
    EXPECT_EQ(disk->read(0, bytes), 0);
  }
}

TEST_P(FileTroubleTest, AFileWithoutANameIsServedOn) {
  const std::string path = directory_.file("disk", 65'536);
  auto backing = value_of(open_file(path, {}));
  auto disk = queue(*backing);
  std::filesystem::remove(path);
  EXPECT_EQ(disk->write(0, std::string(4096, 'x')), 0);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_TRUE(backing->refresh());
  auto later = queue(*backing);  // opens the file once more, without a name
  std::string bytes(4096, '-');
  EXPECT_EQ(later->read(0, bytes), 0);
  EXPECT_EQ(bytes, std::string(4096, 'x'));
}

TEST_P(FileTroubleTest, AFullDiskEndsInENOSPCAndLivesOn) {
  const Mount mount(directory_.path("small"), "tmpfs", "size=1m");
  if (!mount) GTEST_SKIP() << "may not mount";
  auto backing = value_of(open_file(directory_.file("small/disk", 8 << 20), {}));
  auto disk = queue(*backing);
  int result = 0;
  uint64_t offset = 0;
  for (; result == 0 && offset < 8 << 20; offset += 65'536)
    result = disk->write(offset, std::string(65'536, 'x'));
  EXPECT_EQ(result, -ENOSPC);
  EXPECT_GT(offset, 500'000U);
  std::string bytes(65'536, '-');
  EXPECT_EQ(disk->read(0, bytes), 0);
  EXPECT_EQ(bytes, std::string(65'536, 'x'));
  EXPECT_EQ(disk->range(Operation::discard, 0, 65'536 * 2), 0);
  EXPECT_EQ(disk->write(65'536, std::string(4096, 'y')), 0);
  EXPECT_EQ(disk->flush(), 0);
}

// To open a file may take as long as its disk hangs, and a worker serves others too. Here it fails instead.
TEST_P(FileTroubleTest, H254_AQueueThatStartsOpensNothing) {
  auto backing = value_of(open_file(directory_.file("disk", 1 << 20), {.lanes = 2}));
  const auto loop = value_of(loop::Loop::start({.use_io_uring = GetParam()}));
  for (int round = 0; round < 2; ++round) {
    std::array<std::unique_ptr<Lane>, 2> lanes;
    std::array<Waited, 2> writes;
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    loop->run([&] {
      for (auto& lane : lanes) lane = backing->open_lane(*loop);
    });
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    std::string bytes(512, 'x');
    const iovec piece{bytes.data(), bytes.size()};
    loop->run([&] {
      for (size_t i = 0; i < lanes.size(); ++i) {
        writes[i].operation = Operation::write;
        writes[i].durable = true;
        writes[i].pieces = {&piece, 1};
        writes[i].length = bytes.size();
        if (const auto ended = lanes[i]->submit(writes[i])) writes[i].finish(*ended);
      }
    });
    EXPECT_TRUE(eventually([&] { return writes[0].ended && writes[1].ended; }));
    EXPECT_EQ(writes[0].result, 0);
    EXPECT_EQ(writes[1].result, 0);
    loop->run([&] {
      for (auto& lane : lanes) lane.reset();
    });
  }
}

TEST_P(FileTroubleTest, ALimitOfTheProcessEndsInAnErrorAndNotInASignal) {
  const std::string path = directory_.file("disk", uint64_t{1} << 40);
  auto backing = value_of(open_file(path, {}));
  auto disk = queue(*backing);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limited{.rlim_cur = uint64_t{1} << 38, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limited), 0);
  EXPECT_EQ(disk->write(uint64_t{1} << 39, std::string(4096, 'x')), -EFBIG);
  EXPECT_EQ(disk->write((uint64_t{1} << 38) - 4096, std::string(8192, 'x')), -EFBIG);  // half of it is short
  EXPECT_EQ(disk->write(0, std::string(4096, 'x')), 0);
  ::setrlimit(RLIMIT_FSIZE, &before);
}

TEST_P(FileTroubleTest, PunchedAndDiscardedRangesGiveSpaceBack) {
  const std::string path = directory_.file("disk", 4 << 20);
  auto backing = value_of(open_file(path, {}));
  if (backing->geometry().max_discard == 0) GTEST_SKIP() << "this file system cannot punch holes";
  auto disk = queue(*backing);
  ASSERT_EQ(disk->write(0, std::string(4 << 20, 'x'), true), 0);
  const uint64_t full = allocated(path);
  EXPECT_EQ(disk->range(Operation::discard, 0, 1 << 20), 0);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_LE(allocated(path), full - (1 << 20));
  EXPECT_EQ(disk->range(Operation::write_zeroes, 1 << 20, 1 << 20, true), 0);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_LE(allocated(path), full - (2 << 20));
  EXPECT_EQ(disk->range(Operation::write_zeroes, 2 << 20, 1 << 20, false), 0);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_GT(allocated(path), full - (3 << 20) + (1 << 19));
  EXPECT_EQ(std::filesystem::file_size(path), 4U << 20);
}

TEST_P(FileTroubleTest, ZerosAreWrittenWhereTheFileSystemHasNoShortCut) {
  const Mount mount(directory_.path("ram"), "ramfs", "");
  if (!mount) GTEST_SKIP() << "may not mount";
  auto backing = value_of(open_file(directory_.file("ram/disk", 4 << 20), {}));
  EXPECT_EQ(backing->geometry().max_discard, 0U);
  EXPECT_FALSE(backing->geometry().unmapping_zeroes);
  auto disk = queue(*backing);
  for (const bool may_unmap : {false, true}) {
    ASSERT_EQ(disk->write(0, std::string(4 << 20, 'x')), 0);
    EXPECT_EQ(disk->range(Operation::write_zeroes, 1536, 2'500'096, may_unmap), 0);
    std::string bytes(4 << 20, '-');
    ASSERT_EQ(disk->read(0, bytes), 0);
    std::string expected(4 << 20, 'x');
    std::fill_n(expected.begin() + 1536, 2'500'096, '\0');
    EXPECT_TRUE(bytes == expected);
  }
  EXPECT_EQ(disk->range(Operation::discard, 0, 4096), 0);
}

// A failed sync. Both of these fail for real, without a hook in the program: the kernel refuses the call of a
// pool thread, and a block device has lost the room for what was written to it.

TEST(FileSync, AfterAFailureNothingIsWrittenUntilTheFileIsOpenedAgain) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("disk", 1 << 20);
  auto backing = value_of(open_file(path, {}));
  auto healthy = std::make_unique<Queue>(*backing, true);
  ASSERT_EQ(healthy->write(0, std::string(4096, 'x'), true), 0);
  std::jthread([&] {
    make_fail(SYS_fdatasync, EIO);
    Queue failing(*backing, false);
    EXPECT_EQ(failing.write(4096, std::string(4096, 'y')), 0);
    EXPECT_EQ(failing.flush(), -EIO);
  }).join();
  // The kernel would carry all of these out.
  EXPECT_EQ(healthy->flush(), -EIO);
  EXPECT_EQ(healthy->write(0, std::string(512, 'z')), -EIO);
  EXPECT_EQ(healthy->range(Operation::discard, 0, 4096), -EIO);
  EXPECT_EQ(healthy->range(Operation::write_zeroes, 0, 4096), -EIO);
  EXPECT_EQ(Queue(*backing, true).flush(), -EIO) << "of a queue that starts later";
  std::string bytes(512, '-');
  EXPECT_EQ(healthy->read(0, bytes), 0);
  EXPECT_EQ(bytes, std::string(512, 'x'));
  healthy.reset();
  backing.reset();
  auto reopened = value_of(open_file(path, {}));
  Queue again(*reopened, true);
  EXPECT_EQ(again.write(0, std::string(512, 'z'), true), 0);
  EXPECT_EQ(again.flush(), 0);
}

TEST(FileSync, ADurableWriteWhoseSyncFailsFails) {
  const TemporaryDirectory directory;
  auto backing = value_of(open_file(directory.file("disk", 1 << 20), {}));
  std::jthread([&] {
    make_fail(SYS_fdatasync, ENOSPC);
    Queue disk(*backing, false);
    EXPECT_EQ(disk.write(0, std::string(4096, 'y'), true), -ENOSPC);
    EXPECT_EQ(disk.write(0, std::string(4096, 'y')), -EIO);
  });
}

TEST_P(FileTroubleTest, LostWritesFailEveryFlushThatWaitsForThem) {
  const Mount mount(directory_.path("small"), "tmpfs", "size=1m");
  if (!mount) GTEST_SKIP() << "may not mount";
  const LoopDevice device(directory_.file("small/disk", 16 << 20), 512);
  if (!device) GTEST_SKIP() << "no loop devices";
  {
    auto backing = value_of(open_file(device.path(), {}));
    auto disk = queue(*backing);
    for (uint64_t i = 0; i < 8; ++i)
      ASSERT_EQ(disk->write(i << 20, std::string(1 << 20, 'x')), 0);  // into the page cache
    std::vector<std::unique_ptr<Waited>> flushes;
    for (int i = 0; i < 10; ++i) {
      flushes.push_back(std::make_unique<Waited>());
      flushes.back()->operation = Operation::flush;
    }
    disk->submit(flushes);
    ASSERT_TRUE(eventually(
        [&] { return std::ranges::all_of(flushes, [](auto& flush) { return flush->ended.load(); }); }));
    for (const auto& flush : flushes) EXPECT_LT(flush->result, 0);
    EXPECT_LT(disk->write(0, std::string(512, 'x')), 0);
  }
}

TEST_P(FileTroubleTest, FlushesThatCoverDifferentWritesAllSucceed) {
  auto backing = value_of(open_file(directory_.file("disk", 1 << 20), {}));
  auto disk = queue(*backing);
  std::vector<std::unique_ptr<Waited>> requests;
  static const std::string bytes(4096, 'x');
  static const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  for (uint64_t i = 0; i < 200; ++i) {
    requests.push_back(std::make_unique<Waited>());
    Waited& request = *requests.back();
    request.operation = i % 2 == 0 ? Operation::flush : Operation::write;
    request.durable = true;
    request.offset = i * 4096;
    request.length = 4096;
    request.pieces = {&piece, 1};
  }
  disk->submit(requests);
  ASSERT_TRUE(eventually(
      [&] { return std::ranges::all_of(requests, [](auto& request) { return request->ended.load(); }); }));
  for (const auto& request : requests) EXPECT_EQ(request->result, 0);
}

// Direct I/O.

TEST_P(FileTroubleTest, UnalignedMemoryIsBouncedThroughBoundedMemory) {
  auto backing = value_of(open_file(directory_.file("disk", 64 << 20), {.direct = true}));
  auto disk = queue(*backing);
  // More at once than the pool has buffers, and each larger than one.
  constexpr size_t count = 3 * BouncePool::buffers;
  constexpr size_t length = 5 * BouncePool::buffer_size + 512;
  std::vector<std::unique_ptr<Waited>> requests;
  std::vector<std::string> buffers(count);
  std::vector<iovec> pieces(count);
  for (const Operation operation : {Operation::write, Operation::read}) {
    requests.clear();
    for (size_t i = 0; i < count; ++i) {
      buffers[i].assign(length + 1, operation == Operation::write ? static_cast<char>('a' + i) : '-');
      pieces[i] = {buffers[i].data() + 1, length};
      requests.push_back(std::make_unique<Waited>());
      Waited& request = *requests.back();
      request.operation = operation;
      request.offset = i * (1 << 20);
      request.length = length;
      request.pieces = {&pieces[i], 1};
    }
    disk->submit(requests);
    ASSERT_TRUE(eventually(
        [&] { return std::ranges::all_of(requests, [](auto& request) { return request->ended.load(); }); }));
    for (const auto& request : requests) ASSERT_EQ(request->result, 0);
  }
  for (size_t i = 0; i < count; ++i)
    EXPECT_TRUE(buffers[i].substr(1) == std::string(length, static_cast<char>('a' + i)));
}

// Kibibytes, the most that there ever was.
size_t peak() {
  std::ifstream status("/proc/self/status");
  size_t kib = 0;
  for (std::string word; status >> word;) {
    if (word == "VmHWM:") status >> kib;
  }
  return kib;
}

TEST_P(FileTroubleTest, H251_ARequestOfFourGiBTakesNoMoreMemoryThanAnother) {
  constexpr uint64_t length = (uint64_t{4} << 30) - 512;
  auto backing = value_of(open_file(directory_.file("disk", uint64_t{8} << 30), {.direct = true}));
  auto disk = queue(*backing);
  // Many descriptors may name the same memory.
  constexpr size_t part = size_t{32} << 20;
  std::string memory(part + 1, '-');
  std::vector<iovec> pieces(length / part + 1, {memory.data() + 1, part});
  pieces.back().iov_len = length % part;
  const size_t before = peak();
  EXPECT_EQ(disk->transfer(Operation::read, 0, pieces), 0);
  EXPECT_LT(peak(), before + 16'384);
  EXPECT_EQ(memory[1], '\0');
}

TEST_P(FileTroubleTest, ABouncedRequestThatFailsGivesItsBufferBack) {
  const std::string path = directory_.file("disk", 4 << 20);
  auto backing = value_of(open_file(path, {.direct = true}));
  auto disk = queue(*backing);
  std::filesystem::resize_file(path, 4096);
  std::string memory(8193, '-');
  const iovec piece{memory.data() + 1, 8192};
  for (size_t i = 0; i < 3 * BouncePool::buffers; ++i) {
    EXPECT_LT(disk->transfer(Operation::read, 1 << 20, {&piece, 1}), 0);
  }
}

// Block devices.

TEST_P(FileTroubleTest, ABlockDeviceOfLargeBlocksServesSectorsToo) {
  const std::string image = directory_.file("image", 8 << 20);
  const LoopDevice device(image, 4096);
  if (!device) GTEST_SKIP() << "no loop devices";
  for (const bool direct : {false, true}) {
    auto backing = value_of(open_file(device.path(), {.direct = direct}));
    auto disk = queue(*backing);
    EXPECT_EQ(backing->capacity(), 8U << 20);
    EXPECT_EQ(backing->geometry().logical_block_size, 4096U);
    EXPECT_EQ(disk->write(0, std::string(65'536, 'x')), 0);
    EXPECT_EQ(disk->write(512, std::string(512, 'y'), true), 0);
    EXPECT_EQ(disk->range(Operation::write_zeroes, 1024, 512), 0);
    EXPECT_EQ(disk->range(Operation::write_zeroes, 8192, 8192), 0);
    std::string bytes(65'536, '-');
    EXPECT_EQ(disk->read(0, bytes), 0);
    std::string expected = std::string(512, 'x') + std::string(512, 'y') + std::string(512, '\0') +
                           std::string(6656, 'x') + std::string(8192, '\0') +
                           std::string(65'536 - 16'384, 'x');
    EXPECT_TRUE(bytes == expected);
    std::string sector(512, '-');
    EXPECT_EQ(disk->read(512, sector), 0);
    EXPECT_EQ(sector, std::string(512, 'y'));
    EXPECT_EQ(disk->flush(), 0);
  }
}

TEST_P(FileTroubleTest, ABlockDeviceDiscardsByPunchingHoles) {
  const std::string image = directory_.file("image", 8 << 20);
  const LoopDevice device(image, 512);
  if (!device) GTEST_SKIP() << "no loop devices";
  auto backing = value_of(open_file(device.path(), {}));
  if (backing->geometry().max_discard == 0) GTEST_SKIP() << "no discard here";
  auto disk = queue(*backing);
  ASSERT_EQ(disk->write(0, std::string(8 << 20, 'x'), true), 0);
  const uint64_t full = allocated(image);
  EXPECT_EQ(disk->range(Operation::discard, 0, 4 << 20), 0);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_LE(allocated(image), full - (4 << 20));
  std::string bytes(4096, '-');
  EXPECT_EQ(disk->read(4 << 20, bytes), 0);
  EXPECT_EQ(bytes, std::string(4096, 'x'));
}

// A block device of which the kernel would say that it does not zero by unmapping.
class WithoutZeroing final : public Backing {
 public:
  explicit WithoutZeroing(DiskFile file) {
    file.punches = false;
    shared_ = value_of(SharedFile::open(std::move(file), 1));
    capacity_ = value_of(shared_->file.size());
  }
  std::unique_ptr<Lane> open_lane(loop::Loop& loop) override {
    return std::make_unique<FileLane>(*this, *shared_, loop);
  }

 private:
  std::unique_ptr<SharedFile> shared_;
};

TEST_P(FileTroubleTest, ABlockDeviceThatDoesNotZeroByUnmappingDiscardsAllTheSame) {
  const std::string image = directory_.file("image", 8 << 20);
  const LoopDevice device(image, 512);
  if (!device) GTEST_SKIP() << "no loop devices";
  DiskFile file = value_of(DiskFile::open(device.path(), {}));
  if (file.geometry.max_discard == 0) GTEST_SKIP() << "no discard here";
  WithoutZeroing backing(std::move(file));
  auto disk = queue(backing);
  ASSERT_EQ(disk->write(0, std::string(8 << 20, 'x'), true), 0);
  const uint64_t full = allocated(image);
  EXPECT_EQ(disk->range(Operation::discard, 1 << 20, 4 << 20), 0);
  EXPECT_EQ(disk->range(Operation::discard, 8 << 20, 512), -EINVAL);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_LE(allocated(image), full - (4 << 20));
  for (const uint64_t kept : {0U, 5U << 20}) {
    std::string bytes(1 << 20, '-');
    EXPECT_EQ(disk->read(kept, bytes), 0);
    EXPECT_TRUE(bytes == std::string(1 << 20, 'x')) << kept;
  }
}

TEST_P(FileTroubleTest, NeitherAFileNorADeviceThatCannotOffersToEraseSecurely) {
  const std::string image = directory_.file("image", 8 << 20);
  const LoopDevice device(image, 512);
  for (const std::string& path : {directory_.file("disk", 1 << 20), device.path()}) {
    if (path.empty()) continue;
    auto backing = value_of(open_file(path, {}));
    EXPECT_EQ(backing->geometry().max_secure_erase, 0U);
    EXPECT_EQ(queue(*backing)->range(Operation::secure_erase, 0, 4096), -EOPNOTSUPP);
  }
}

// Has one ioctl of this thread, and of those that it starts, answered by whoever reads the notifications from
// the returned fd.
UniqueFd intercept_ioctl(uint32_t command) {
  std::array<sock_filter, 6> program = {{
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_ioctl},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, args[1])},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, command},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return {};
  return UniqueFd(static_cast<int>(
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter)));
}

// Answers BLKSECDISCARD as the driver of a device that can does, until all who may ask have ended.
std::vector<std::array<uint64_t, 2>> erase_securely(const UniqueFd& listener, const std::string& device) {
  std::vector<std::array<uint64_t, 2>> erased;
  const UniqueFd medium(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  pollfd entry{.fd = listener.get(), .events = POLLIN, .revents = 0};
  while (::poll(&entry, 1, 30'000) == 1 && (entry.revents & POLLIN) != 0) {
    seccomp_notif asked{};
    if (::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) break;
    seccomp_notif_resp answer{.id = asked.id, .val = 0, .error = 0, .flags = 0};
    if (asked.data.args[2] == 0) {
      answer.error = -EFAULT;
    } else {
      std::array<uint64_t, 2> range{};
      const iovec to{range.data(), sizeof range};
      const iovec from{reinterpret_cast<void*>(asked.data.args[2]), sizeof range};  // NOLINT
      // By the kernel, which is who reads it otherwise.
      EXPECT_EQ(::process_vm_readv(::getpid(), &to, 1, &from, 1, 0), static_cast<ssize_t>(sizeof range));
      const std::string zeros(range[1], '\0');
      EXPECT_EQ(::pwrite(medium.get(), zeros.data(), zeros.size(), static_cast<off_t>(range[0])),
                static_cast<ssize_t>(zeros.size()));
      erased.push_back(range);
    }
    EXPECT_EQ(::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_SEND, &answer), 0);
  }
  return erased;
}

TEST_P(FileTroubleTest, ABlockDeviceThatErasesSecurelyIsAskedTo) {
  const std::string image = directory_.file("image", 8 << 20);
  const LoopDevice device(image, 512);
  if (!device) GTEST_SKIP() << "no loop devices";
  std::promise<UniqueFd> listening;
  std::jthread user([&] {
    UniqueFd fd = intercept_ioctl(BLKSECDISCARD);
    const bool intercepted = static_cast<bool>(fd);
    listening.set_value(std::move(fd));
    if (!intercepted) return;
    auto backing = value_of(open_file(device.path(), {}));
    ASSERT_GT(backing->geometry().max_secure_erase, 1U << 20);
    auto disk = queue(*backing);
    ASSERT_EQ(disk->write(0, std::string(8 << 20, 'x'), true), 0);
    EXPECT_EQ(disk->range(Operation::secure_erase, 1 << 20, 1 << 20), 0);
    EXPECT_EQ(disk->range(Operation::secure_erase, 4 << 20, 512), 0);
    EXPECT_EQ(disk->range(Operation::secure_erase, 0, 0), 0);
    EXPECT_EQ(disk->range(Operation::secure_erase, 8 << 20, 512), -EINVAL);
    EXPECT_EQ(disk->range(Operation::flush, 0, 0), 0);
  });
  const UniqueFd listener = listening.get_future().get();
  if (!listener) GTEST_SKIP() << "may not intercept system calls";
  const auto erased = erase_securely(listener, device.path());
  using Range = std::array<uint64_t, 2>;
  EXPECT_EQ(erased, (std::vector<Range>{{1 << 20, 1 << 20}, {4 << 20, 512}}));
}

TEST(FileBlockDevice, AMountedOneIsNotWritten) {
  const TemporaryDirectory directory;
  const std::string image = directory.file("image", 16 << 20);
  if (std::system(("mkfs.ext4 -q " + image + " >/dev/null 2>&1").c_str()) != 0)
    GTEST_SKIP() << "no mkfs.ext4";
  const LoopDevice device(image, 512);
  if (!device) GTEST_SKIP() << "no loop devices";
  std::filesystem::create_directory(directory.path("at"));
  const Mount own_namespace(directory.path("any"), "ramfs", "");
  if (!own_namespace ||
      ::mount(device.path().c_str(), directory.path("at").c_str(), "ext4", 0, nullptr) != 0) {
    GTEST_SKIP() << "may not mount";
  }
  EXPECT_NE(refusal(device.path()).find("in use"), std::string::npos);
  EXPECT_EQ(refusal(device.path(), {.read_only = true}), "");
  ::umount2(directory.path("at").c_str(), 0);
  EXPECT_EQ(refusal(device.path()), "");
}

TEST(FileBlockDevice, AWriteProtectedOneIsRefused) {
  const TemporaryDirectory directory;
  const LoopDevice device(directory.file("image", 1 << 20), 512, true);
  if (!device) GTEST_SKIP() << "no loop devices";
  EXPECT_NE(refusal(device.path()), "");
  EXPECT_EQ(refusal(device.path(), {.read_only = true}), "");
}

}  // namespace
}  // namespace ringway::backing
