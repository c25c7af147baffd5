#include "ringway/preload/settings.h"

#include <gtest/gtest.h>

namespace ringway::preload {
namespace {

TEST(PreloadSettings, nothing_said_is_a_tap_and_one_worker) {
  const auto settings = Settings::parse("");
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->net, "tap");
  EXPECT_EQ(settings->workers, 1U);
}

TEST(PreloadSettings, everything_can_be_said) {
  const auto settings = Settings::parse("net=none,workers=4,poll=never,log=debug");
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->net, "none");
  EXPECT_EQ(settings->workers, 4U);
  EXPECT_EQ(settings->polling, loop::Polling::never);
  EXPECT_EQ(settings->level, log::Level::debug);
}

TEST(PreloadSettings, what_is_not_understood_is_refused) {
  for (const char* text :
       {"net", "net=", "net=tun", "workers=0", "workers=65", "workers=1x", "workers=", "poll=often",
        "log=all", "color=red", ",", "net=none,,", "=", "workers=99999999999"}) {
    EXPECT_FALSE(Settings::parse(text)) << text;
  }
}

}  // namespace
}  // namespace ringway::preload
