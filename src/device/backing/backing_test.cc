// What is true of every backing with bytes, buffered and direct, with both pollers.
#include "ringway/device/backing/backing.h"

#include <algorithm>
#include <array>
#include <random>

#include "ringway/device/backing/backing_testing.h"
#include "ringway/device/backing/file.h"
#include "ringway/device/backing/memory.h"

namespace ringway::backing {
namespace {

using namespace testing;

constexpr uint64_t disk_size = 8 << 20;

struct Kind {
  friend void PrintTo(const Kind& kind, std::ostream* to) { *to << kind.name; }
  const char* name;
  enum : uint8_t { memory, tmpfs, buffered, direct } medium;
  bool use_io_uring;
};

class BackingTest : public ::testing::TestWithParam<Kind> {
 protected:
  std::unique_ptr<Backing> open(bool read_only = false) {
    if (GetParam().medium == Kind::memory) return value_of(open_memory(disk_size, read_only));
    return value_of(open_file(file_, {.read_only = read_only, .direct = GetParam().medium == Kind::direct}));
  }
  std::unique_ptr<Queue> queue(Backing& backing) {
    return std::make_unique<Queue>(backing, GetParam().use_io_uring);
  }

 private:
  TemporaryDirectory directory_{GetParam().medium == Kind::tmpfs ? "/dev/shm" : "/var/tmp"};
  std::string file_ = directory_.file("disk", disk_size);
};

INSTANTIATE_TEST_SUITE_P(
    Backings, BackingTest,
    ::testing::Values(Kind{"memory", Kind::memory, true}, Kind{"tmpfs", Kind::tmpfs, true},
                      Kind{"file_io_uring", Kind::buffered, true}, Kind{"file_epoll", Kind::buffered, false},
                      Kind{"direct_io_uring", Kind::direct, true}, Kind{"direct_epoll", Kind::direct, false}),
    [](const auto& kind) { return kind.param.name; });

TEST_P(BackingTest, WhatIsWrittenIsReadAndTheRestIsZeros) {
  auto backing = open();
  auto disk = queue(*backing);
  EXPECT_EQ(backing->capacity(), disk_size);
  EXPECT_EQ(disk->write(4096, std::string(8192, 'x')), 0);
  std::string bytes(16384, '-');
  EXPECT_EQ(disk->read(0, bytes), 0);
  EXPECT_EQ(bytes, std::string(4096, '\0') + std::string(8192, 'x') + std::string(4096, '\0'));
}

TEST_P(BackingTest, SingleSectorsAreServed) {
  auto backing = open();
  auto disk = queue(*backing);
  EXPECT_EQ(disk->write(512 * 3, std::string(512, 'a')), 0);
  EXPECT_EQ(disk->write(disk_size - 512, std::string(512, 'z')), 0);
  std::string sector(512, '-');
  EXPECT_EQ(disk->read(512 * 3, sector), 0);
  EXPECT_EQ(sector, std::string(512, 'a'));
  EXPECT_EQ(disk->read(disk_size - 512, sector), 0);
  EXPECT_EQ(sector, std::string(512, 'z'));
}

// Pieces at odd addresses and of odd lengths, which direct I/O cannot take.
TEST_P(BackingTest, PiecesMayLieAnywhere) {
  auto backing = open();
  auto disk = queue(*backing);
  std::string memory(20'000, '-');
  for (const size_t first : {1UL, 511UL, 513UL, 4095UL, 8191UL}) {
    std::string expected(8192, '\0');
    for (size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<char>(first + i * 31);
    const auto pieces_at = [&](size_t start) {
      return std::array<iovec, 2>{
          {{memory.data() + start, first}, {memory.data() + start + first + 7, 8192 - first}}};
    };
    auto pieces = pieces_at(1);
    std::copy_n(expected.data(), first, static_cast<char*>(pieces[0].iov_base));
    std::copy_n(expected.data() + first, 8192 - first, static_cast<char*>(pieces[1].iov_base));
    ASSERT_EQ(disk->transfer(Operation::write, 12'288, pieces), 0);
    memory.assign(memory.size(), '-');
    pieces = pieces_at(10'001);
    ASSERT_EQ(disk->transfer(Operation::read, 12'288, pieces), 0);
    std::string read(static_cast<char*>(pieces[0].iov_base), first);
    read.append(static_cast<char*>(pieces[1].iov_base), 8192 - first);
    ASSERT_EQ(read, expected);
    ASSERT_EQ(memory[10'000], '-');
    ASSERT_EQ(memory[10'001 + first], '-');
  }
}

TEST_P(BackingTest, MorePiecesThanOneSystemCallTakesAreServed) {
  auto backing = open();
  auto disk = queue(*backing);
  for (const size_t piece_size : {512UL, 4096UL}) {
    alignas(4096) static std::array<char, 1500 * 4096> memory;
    std::vector<iovec> pieces;
    for (size_t i = 0; i < 1500; ++i) {
      std::fill_n(&memory[i * 4096], piece_size, static_cast<char>(i * 7));
      pieces.push_back({&memory[i * 4096], piece_size});
    }
    ASSERT_EQ(disk->transfer(Operation::write, 0, pieces), 0);
    memory.fill('-');
    ASSERT_EQ(disk->transfer(Operation::read, 0, pieces), 0);
    for (size_t i = 0; i < 1500; ++i) {
      ASSERT_EQ(memory[i * 4096], static_cast<char>(i * 7));
      ASSERT_EQ(memory[i * 4096 + piece_size - 1], static_cast<char>(i * 7));
    }
  }
}

TEST_P(BackingTest, ZeroedRangesReadAsZerosAndNothingElseDoes) {
  auto backing = open();
  auto disk = queue(*backing);
  for (const bool may_unmap : {false, true}) {
    for (const auto& [offset, length] :
         {std::pair<uint64_t, uint64_t>{512, 512}, {4096, 8192}, {2048, 1'001'472}, {0, 2 << 20}}) {
      ASSERT_EQ(disk->write(0, std::string(3 << 20, 'x')), 0);
      ASSERT_EQ(disk->range(Operation::write_zeroes, offset, length, may_unmap), 0);
      std::string bytes(3 << 20, '-');
      ASSERT_EQ(disk->read(0, bytes), 0);
      std::string expected(3 << 20, 'x');
      std::fill_n(expected.begin() + static_cast<ptrdiff_t>(offset), length, '\0');
      ASSERT_TRUE(bytes == expected) << offset << " " << length << " " << may_unmap;
    }
  }
}

TEST_P(BackingTest, DiscardingLeavesTheNeighboursAlone) {
  auto backing = open();
  auto disk = queue(*backing);
  ASSERT_EQ(disk->write(0, std::string(1 << 20, 'x')), 0);
  EXPECT_EQ(disk->range(Operation::discard, 512, 512), 0);
  EXPECT_EQ(disk->range(Operation::discard, 10'240, 100'352), 0);
  std::string bytes(1 << 20, '-');
  EXPECT_EQ(disk->read(0, bytes), 0);
  EXPECT_EQ(bytes.substr(0, 512), std::string(512, 'x'));
  EXPECT_EQ(bytes.substr(1024, 9216), std::string(9216, 'x'));
  EXPECT_EQ(bytes.substr(110'592), std::string((1 << 20) - 110'592, 'x'));
}

TEST_P(BackingTest, FlushAndDurableWritesSucceed) {
  auto backing = open();
  auto disk = queue(*backing);
  EXPECT_EQ(disk->flush(), 0);
  EXPECT_EQ(disk->write(0, std::string(4096, 'x'), true), 0);
  EXPECT_EQ(disk->write(512, std::string(512, 'y'), true), 0);
  EXPECT_EQ(disk->flush(), 0);
}

TEST_P(BackingTest, WhatIsNotInsideTheDiskIsRefused) {
  auto backing = open();
  auto disk = queue(*backing);
  for (const Operation operation :
       {Operation::read, Operation::write, Operation::discard, Operation::write_zeroes}) {
    const auto attempt = [&](uint64_t offset, uint64_t length) {
      return disk->range(operation, offset, length);
    };
    EXPECT_EQ(attempt(disk_size, 512), -EINVAL);
    EXPECT_EQ(attempt(disk_size - 512, 1024), -EINVAL);
    EXPECT_EQ(attempt(~0ULL << 9, 512), -EINVAL);
    EXPECT_EQ(attempt(512, ~0ULL << 9), -EINVAL);
    EXPECT_EQ(attempt(1, 512), -EINVAL);
    EXPECT_EQ(attempt(0, 511), -EINVAL);
    EXPECT_EQ(attempt(disk_size, 0), 0);
  }
}

TEST_P(BackingTest, AReadOnlyDiskIsNotChanged) {
  auto backing = open(true);
  auto disk = queue(*backing);
  EXPECT_TRUE(backing->read_only());
  EXPECT_EQ(disk->write(0, std::string(512, 'x')), -EROFS);
  EXPECT_EQ(disk->range(Operation::discard, 0, 4096), -EROFS);
  EXPECT_EQ(disk->range(Operation::write_zeroes, 0, 4096), -EROFS);
  EXPECT_EQ(disk->range(Operation::secure_erase, 0, 4096), -EROFS);
  EXPECT_EQ(disk->flush(), 0);
  std::string bytes(512, '-');
  EXPECT_EQ(disk->read(0, bytes), 0);
}

TEST_P(BackingTest, RandomRequestsDoWhatTheyWouldDoToAnArray) {
  auto backing = open();
  auto disk = queue(*backing);
  constexpr size_t sectors = 1024;
  std::string model(sectors * sector_size, '\0');
  std::mt19937 random(7);
  const auto below = [&](size_t limit) {
    return std::uniform_int_distribution<size_t>(0, limit - 1)(random);
  };
  std::string buffer;
  for (int round = 0; round < 600; ++round) {
    const size_t first = below(sectors);
    const size_t count = 1 + below(std::min<size_t>(sectors - first, round % 3 == 0 ? sectors : 16));
    const size_t offset = first * sector_size;
    const size_t length = count * sector_size;
    switch (below(4)) {
      case 0:
      case 1: {
        buffer.assign(length + 1, static_cast<char>(random()));
        const iovec piece{buffer.data() + below(2), length};
        ASSERT_EQ(disk->transfer(Operation::write, offset, {&piece, 1}, below(20) == 0), 0);
        model.replace(offset, length, static_cast<const char*>(piece.iov_base), length);
        break;
      }
      case 2:
        ASSERT_EQ(disk->range(Operation::write_zeroes, offset, length, below(2) == 0), 0);
        model.replace(offset, length, length, '\0');
        break;
      default: {
        buffer.assign(length + 1, '-');
        const iovec piece{buffer.data() + below(2), length};
        ASSERT_EQ(disk->transfer(Operation::read, offset, {&piece, 1}), 0);
        ASSERT_EQ(model.compare(offset, length, static_cast<const char*>(piece.iov_base), length), 0);
      }
    }
  }
}

TEST_P(BackingTest, HundredsOfRequestsAtOnceAllEnd) {
  auto backing = open();
  auto disk = queue(*backing);
  constexpr size_t count = 500;
  std::vector<std::unique_ptr<Waited>> requests;
  std::vector<std::string> buffers(count);
  std::vector<iovec> pieces(count);
  for (const Operation operation : {Operation::write, Operation::read}) {
    requests.clear();
    for (size_t i = 0; i < count; ++i) {
      buffers[i].assign(8192 + 1, operation == Operation::write ? static_cast<char>(i) : '-');
      pieces[i] = {buffers[i].data() + i % 2, 8192};
      requests.push_back(std::make_unique<Waited>());
      Waited& request = *requests.back();
      request.operation = operation;
      request.offset = i * 8192;
      request.length = 8192;
      request.pieces = {&pieces[i], 1};
      request.durable = i % 10 == 0;
    }
    disk->submit(requests);
    ASSERT_TRUE(eventually([&] {
      return std::all_of(requests.begin(), requests.end(), [](auto& r) { return r->ended.load(); });
    }));
    for (const auto& request : requests) ASSERT_EQ(request->result, 0);
  }
  for (size_t i = 0; i < count; ++i)
    ASSERT_EQ(buffers[i].substr(i % 2, 8192), std::string(8192, static_cast<char>(i)));
}

// As with any disk, the bytes of overlapping requests may mix; that is all that may happen.
TEST_P(BackingTest, QueuesOnSeveralWorkersMayUseTheSameSectors) {
  auto backing = open();
  std::array<std::unique_ptr<Queue>, 2> queues = {queue(*backing), queue(*backing)};
  {
    std::vector<std::jthread> drivers;
    for (size_t i = 0; i < queues.size(); ++i) {
      drivers.emplace_back([&disk = *queues[i], i] {
        std::string bytes(4096, '-');
        for (int round = 0; round < 200; ++round) {
          EXPECT_EQ(disk.write(0, std::string(4096, static_cast<char>('a' + i))), 0);
          EXPECT_EQ(disk.read(0, bytes), 0);
          EXPECT_TRUE(std::ranges::all_of(bytes, [](char c) { return c == 'a' || c == 'b' || c == '\0'; }));
          EXPECT_EQ(disk.range(round % 2 == 0 ? Operation::discard : Operation::write_zeroes, 0, 4096, true),
                    0);
          if (round % 50 != 0) continue;
          EXPECT_EQ(disk.flush(), 0);
        }
      });
    }
  }
}

}  // namespace
}  // namespace ringway::backing
