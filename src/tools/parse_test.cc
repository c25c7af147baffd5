#include "ringway/tools/parse.h"

#include <gtest/gtest.h>

namespace ringway::tools {
namespace {

TEST(Parse, sizes_with_and_without_units) {
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("512K"), 512U << 10U);
  EXPECT_EQ(parse_size("1g"), 1U << 30U);
  EXPECT_EQ(parse_size("2T"), uint64_t{2} << 40U);
}

TEST(Parse, what_is_not_a_size_is_refused) {
  for (const char* text :
       {"", "G", "-1", "1.5G", "1GB", "1X", "99999999999999999999", "18014398509481984K", " 1"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(Parse, cpu_lists) {
  EXPECT_EQ(parse_cpu_list(""), std::vector<int>{});
  EXPECT_EQ(parse_cpu_list("3"), std::vector<int>{3});
  EXPECT_EQ(parse_cpu_list("0,2-4"), (std::vector<int>{0, 2, 3, 4}));
  for (const char* text : {",", "0,", "2-1", "-1", "a", "0-99999", "0;1"})
    EXPECT_FALSE(parse_cpu_list(text)) << text;
}

}  // namespace
}  // namespace ringway::tools
