#include "ringway/kernel/ioctl_table.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace ringway::kernel {
namespace {

TEST(IoctlTable, NumbersAndNamesAreUnique) {
  std::set<unsigned long> requests;
  std::set<std::string> names;
  for (const IoctlInfo& info : ioctl_table()) {
    EXPECT_TRUE(requests.insert(info.request).second) << info.name;
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
  }
}

TEST(IoctlTable, SizesAreThoseThatTheNumbersEncode) {
  for (const IoctlInfo& info : ioctl_table()) {
    EXPECT_EQ(_IOC_SIZE(info.request), size_of(info.argument)) << info.name;
    EXPECT_EQ(_IOC_TYPE(info.request), static_cast<unsigned>(VHOST_VIRTIO)) << info.name;
  }
}

TEST(IoctlTable, DataMovesIfAndOnlyIfThereIsAnArgument) {
  for (const IoctlInfo& info : ioctl_table()) {
    EXPECT_EQ(info.argument == Argument::nothing, info.direction == Direction::none) << info.name;
  }
}

// Of the interface's definition, by hand: the low byte is the number, 0xAF the type, then size and direction.
TEST(IoctlTable, NumbersOfLaterKernelsAreTheirs) {
  EXPECT_STREQ(find_ioctl(0x8004af08)->name, "NEW_WORKER");
  EXPECT_STREQ(find_ioctl(0x4004af09)->name, "FREE_WORKER");
  EXPECT_STREQ(find_ioctl(0x4008af15)->name, "ATTACH_VRING_WORKER");
  EXPECT_STREQ(find_ioctl(0xc008af16)->name, "GET_VRING_WORKER");
  EXPECT_STREQ(find_ioctl(0xaf7e)->name, "VDPA_RESUME");
  EXPECT_STREQ(find_ioctl(0x8008af83)->name, "GET_FEATURES_ARRAY");
  EXPECT_STREQ(find_ioctl(0x4008af83)->name, "SET_FEATURES_ARRAY");
  EXPECT_STREQ(find_ioctl(0x4001af84)->name, "SET_FORK_FROM_OWNER");
  EXPECT_STREQ(find_ioctl(0x8001af85)->name, "GET_FORK_FROM_OWNER");
}

TEST(IoctlTable, AnUnknownNumberIsNotFound) {
  EXPECT_EQ(find_ioctl(0), nullptr);
  EXPECT_EQ(find_ioctl(_IO(VHOST_VIRTIO, 0xff)), nullptr);
  EXPECT_EQ(find_ioctl(_IOW(VHOST_VIRTIO, 0x00, __u32)), nullptr);
}

TEST(IoctlTable, ASignExtendedNumberIsTheSame) {
  const auto as_int = static_cast<int>(VHOST_GET_FEATURES);
  EXPECT_STREQ(find_ioctl(static_cast<unsigned long>(as_int))->name, "GET_FEATURES");
}

TEST(IoctlTable, TailsCountInsideTheFixedPart) {
  for (const IoctlInfo& info : ioctl_table()) {
    const Tail tail = tail_of(info.argument);
    if (tail.element > 0) {
      EXPECT_LE(tail.count_offset + tail.count_size, size_of(info.argument)) << info.name;
    }
  }
}

}  // namespace
}  // namespace ringway::kernel
