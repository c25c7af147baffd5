#include "ringway/kernel/polled_rings.h"

#include <gtest/gtest.h>
#include <poll.h>

namespace ringway::kernel {
namespace {

bool comes(const Signal& signal, int milliseconds) {
  pollfd entry{.fd = signal.fd(), .events = POLLIN};
  return ::poll(&entry, 1, milliseconds) == 1 && signal.take();
}

TEST(PolledRings, a_ring_is_kicked_again_and_again_until_it_is_removed) {
  PolledRings rings;
  const Signal first = *Signal::adopt(*rings.add(0));
  const Signal second = *Signal::adopt(*rings.add(7));
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(comes(first, 5000)) << i;
    EXPECT_TRUE(comes(second, 5000)) << i;
  }
  rings.remove(0);
  first.take();
  EXPECT_FALSE(comes(first, 20));
  EXPECT_TRUE(comes(second, 5000));
  rings.remove(7);
  rings.remove(7);
  second.take();
  EXPECT_FALSE(comes(second, 20));
  const Signal again = *Signal::adopt(*rings.add(0));
  EXPECT_TRUE(comes(again, 5000));
}

}  // namespace
}  // namespace ringway::kernel
