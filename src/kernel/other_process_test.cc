#include "ringway/kernel/other_process.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <string>

#include "ringway/base/mapping.h"

namespace ringway::kernel {
namespace {

TEST(MappedRange, lines_of_maps_are_understood) {
  const auto shared = MappedRange::parse(
      "7f0000000000-7f0000200000 rw-s 00001000 00:01 1025      /memfd:guest ram (deleted)");
  ASSERT_TRUE(shared);
  EXPECT_EQ(shared->begin, 0x7f0000000000U);
  EXPECT_EQ(shared->end, 0x7f0000200000U);
  EXPECT_EQ(shared->offset, 0x1000U);
  EXPECT_TRUE(shared->shared);
  EXPECT_TRUE(shared->writable);
  EXPECT_EQ(shared->name, "/memfd:guest ram (deleted)");
  EXPECT_EQ(shared->device, ::makedev(0, 1));
  EXPECT_EQ(shared->inode, 1025U);
  const auto text = MappedRange::parse("55d0c0000000-55d0c0001000 r-xp 00002000 fe:00 77 /usr/bin/cat");
  ASSERT_TRUE(text);
  EXPECT_FALSE(text->shared);
  EXPECT_FALSE(text->writable);
  const auto stack = MappedRange::parse("7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0          [stack]");
  ASSERT_TRUE(stack);
  EXPECT_TRUE(stack->name.empty());
  EXPECT_FALSE(MappedRange::parse(""));
  EXPECT_FALSE(MappedRange::parse("hello"));
  EXPECT_FALSE(MappedRange::parse("7f00-7f01"));
  EXPECT_FALSE(MappedRange::parse("7f00-7f01 rw-s"));
}

// A child with memory of both kinds, and a descriptor that we do not have.
class OtherProcessTest : public testing::Test {
 protected:
  static constexpr size_t size = 16 << 10;

  OtherProcessTest() {
    const UniqueFd fd(::memfd_create("shared", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(fd.get(), size), 0);
    shared_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    private_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::array<int, 2> ready{};
    EXPECT_EQ(::pipe(ready.data()), 0);
    child_ = ::fork();
    if (child_ == 0) {
      number_in_child = ::memfd_create("descriptor", 0);
      (void)!::write(number_in_child, "hello", 5);
      (void)!::write(ready[1], &number_in_child, sizeof number_in_child);
      while (true) ::pause();
    }
    EXPECT_EQ(::read(ready[0], &number_in_child, sizeof number_in_child), 4);
    for (const int end : ready) ::close(end);
    in_.fill(std::byte{7});
    caller_.emplace(*OtherProcess::of_thread(child_, {.address = 0x1000, .in = in_, .out = out_}));
  }
  void TearDown() override {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    ::munmap(shared_, size);
    ::munmap(private_, size);
  }
  Result<> share(const void* at, uint64_t bytes) {
    regions_.clear();
    return caller_->share({.guest = {0x10000}, .size = bytes, .front_end = {reinterpret_cast<uintptr_t>(at)}},
                          regions_);
  }

  void* shared_ = nullptr;
  void* private_ = nullptr;
  pid_t child_ = 0;
  int number_in_child = -1;
  std::array<std::byte, 16> in_{};
  std::array<std::byte, 8> out_{};
  std::optional<OtherProcess> caller_;
  std::vector<vhost::MemoryRegion> regions_;
};

TEST_F(OtherProcessTest, shared_memory_is_shared_by_its_file) {
  const auto* at = static_cast<const std::byte*>(shared_) + 4096;
  ASSERT_TRUE(share(at, 8192));
  ASSERT_EQ(regions_.size(), 1U);
  const auto region = memory::Region::open(regions_[0].layout, std::move(regions_[0].fd));
  ASSERT_TRUE(region) << region.error().to_string();
  std::memcpy((*region)->data() + 10, "seen", 4);
  EXPECT_EQ(std::memcmp(at + 10, "seen", 4), 0);
  EXPECT_EQ((*region)->layout().guest.value, 0x10000U);
}

TEST_F(OtherProcessTest, private_and_absent_memory_is_refused) {
  EXPECT_EQ(share(private_, size).error().os_error, EFAULT);
  EXPECT_EQ(share(nullptr, size).error().os_error, EFAULT);
  EXPECT_FALSE(share(shared_, uint64_t{1} << 40U));
}

// The line of our own /proc/PID/maps for what begins there: a child's is the same. It lives as long as
// `text`.
std::optional<MappedRange> range_at(const void* at, std::string& text) {
  std::ifstream maps("/proc/self/maps");
  while (std::getline(maps, text)) {
    const auto range = MappedRange::parse(text);
    if (range && range->begin == reinterpret_cast<uintptr_t>(at)) return range;
  }
  return std::nullopt;
}

TEST_F(OtherProcessTest, a_mapping_that_has_been_replaced_is_not_opened) {
  std::string text;
  auto range = range_at(shared_, text);
  ASSERT_TRUE(range);
  EXPECT_TRUE(caller_->open_file(*range));
  ++range->inode;
  EXPECT_EQ(caller_->open_file(*range).error().os_error, EFAULT);
  --range->inode;
  ++range->device;
  EXPECT_EQ(caller_->open_file(*range).error().os_error, EFAULT);
}

TEST_F(OtherProcessTest, a_table_does_not_become_any_number_of_regions) {
  constexpr size_t page = 4096;
  constexpr size_t pieces = OtherProcess::max_pieces + 1;
  const UniqueFd fd(::memfd_create("pieces", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), pieces * page), 0);
  auto area = Mapping::anonymous(pieces * page);
  ASSERT_TRUE(area);
  for (size_t i = 0; i < pieces; ++i) {  // backwards, so that they do not become one mapping
    ASSERT_NE(::mmap(area->data() + i * page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd.get(),
                     static_cast<off_t>((pieces - 1 - i) * page)),
              MAP_FAILED);
  }
  caller_.emplace(*OtherProcess::of_thread(::getpid(), {}));
  EXPECT_TRUE(share(area->data(), (pieces - 1) * page));
  EXPECT_EQ(regions_.size(), pieces - 1);
  EXPECT_EQ(share(area->data(), pieces * page).error().os_error, EFAULT);
}

TEST_F(OtherProcessTest, its_descriptors_can_be_had) {
  const auto fd = caller_->descriptor(number_in_child);
  ASSERT_TRUE(fd) << fd.error().to_string();
  std::array<char, 5> text{};
  EXPECT_EQ(::pread(fd->get(), text.data(), text.size(), 0), 5);
  EXPECT_EQ(std::memcmp(text.data(), "hello", 5), 0);
  EXPECT_EQ(caller_->descriptor(9999).error().os_error, EBADF);
}

TEST_F(OtherProcessTest, only_the_argument_can_be_read_and_written) {
  EXPECT_TRUE(caller_->take<uint64_t>(0x1000));
  EXPECT_TRUE(caller_->take<uint64_t>(0x1008));
  EXPECT_FALSE(caller_->take<uint64_t>(0x1009));
  EXPECT_FALSE(caller_->take<uint64_t>(0xfff));
  EXPECT_FALSE(caller_->take<uint64_t>(0));
  EXPECT_TRUE(caller_->give(0x1000, uint64_t{5}));
  EXPECT_EQ(out_[0], std::byte{5});
  EXPECT_FALSE(caller_->give(0x1001, uint64_t{5}));
}

TEST_F(OtherProcessTest, it_is_known_by_any_of_its_threads) {
  EXPECT_EQ(caller_->process(), child_);
  EXPECT_FALSE(OtherProcess::of_thread(0x3fffff, {}));
}

}  // namespace
}  // namespace ringway::kernel
