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

TEST(Split, pieces_are_what_is_between_the_separators) {
  using Pieces = std::vector<std::string_view>;
  EXPECT_EQ(split("", ','), Pieces());
  EXPECT_EQ(split("a", ','), Pieces({"a"}));
  EXPECT_EQ(split("a,b", ','), Pieces({"a", "b"}));
  EXPECT_EQ(split(",a,,", ','), Pieces({"", "a", "", ""}));
}

TEST(ParseMac, an_address_of_one_station_is_read) {
  const auto mac = parse_mac("52:54:00:aB:cd:0f");
  ASSERT_TRUE(mac) << mac.error();
  EXPECT_EQ((*mac)[0], std::byte{0x52});
  EXPECT_EQ((*mac)[3], std::byte{0xab});
  EXPECT_EQ((*mac)[5], std::byte{0x0f});
}

TEST(ParseMac, anything_else_is_refused) {
  for (const auto* const text : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:0", "52-54-00-ab-cd-0f",
                                 "52:54:00:ab:cd:0g", "52:54:00:ab:cd:0f:", "+2:54:00:ab:cd:0f",
                                 "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"}) {
    EXPECT_FALSE(parse_mac(text)) << text;
  }
}

}  // namespace
}  // namespace ringway::tools
