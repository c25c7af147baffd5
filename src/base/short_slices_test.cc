#include "ringway/base/short_slices.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <thread>

namespace ringway {
namespace {

// The kernel's sched_attr, whose header and the C library's do not go together.
struct Attributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;  // ns
  uint64_t deadline;
  uint64_t period;
};

uint64_t slice_of_this_thread() {
  Attributes attributes{};
  EXPECT_EQ(::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0), 0);
  return attributes.runtime;
}

TEST(ShortSlices, are_the_threads_own_and_not_those_of_threads_that_it_starts) {
  std::thread([] {
    const uint64_t ordinary = slice_of_this_thread();
    if (ordinary == 0) GTEST_SKIP() << "the kernel has no slices of ordinary threads";
    take_short_slices();
    EXPECT_LT(slice_of_this_thread(), ordinary);
    std::thread([&] { EXPECT_EQ(slice_of_this_thread(), ordinary); }).join();
  }).join();
}

}  // namespace
}  // namespace ringway
