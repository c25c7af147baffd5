#include "ringway/tools/port_kinds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringway::tools {
namespace {

using testing::HasSubstr;

std::string mistake(std::string_view text) {
  const auto port = parse_port(text);
  return port ? "no mistake was found" : port.error();
}

TEST(PortKinds, a_port_is_a_kind_and_settings) {
  const auto tap = parse_port("tap:name=tap0");
  ASSERT_TRUE(tap) << tap.error();
  EXPECT_STREQ(tap->kind->name, "tap");
  EXPECT_EQ(tap->text("name"), "tap0");
  EXPECT_FALSE(tap->has("fd"));
  EXPECT_TRUE(parse_port("loop"));
  EXPECT_TRUE(parse_port("null:"));
}

TEST(PortKinds, mistakes_are_told_in_words) {
  EXPECT_THAT(mistake("cable"), HasSubstr("there is no port 'cable'; there are loop, null"));
  EXPECT_THAT(mistake(""), HasSubstr("there is no port ''"));
  EXPECT_THAT(mistake("null:size=5"), HasSubstr("size: a null port has no such key"));
  EXPECT_THAT(mistake("null:send"), HasSubstr("'send' is not KEY=VALUE"));
  EXPECT_THAT(mistake("null:send="), HasSubstr("'send=' is not KEY=VALUE"));
  EXPECT_THAT(mistake("null:send=64,send=65"), HasSubstr("send: is there twice"));
  for (const auto* const text : {"tap:name=a,,", "tap:name=a,", "tap:,name=a", "null:,"})
    EXPECT_THAT(mistake(text), HasSubstr("'' is not KEY=VALUE")) << text;
}

TEST(PortKinds, settings_of_a_switch_port_are_judged_before_anything_is_opened) {
  EXPECT_EQ(mistake("switch:trunk=5+7-9+4094,native=0,tx-bps=1000,isolated=yes,mac=52:54:00:12:34:56"),
            "no mistake was found");
  for (const auto* const trunk :
       {"5+", "+5", "5++6", "+", "5-", "-5", "9-7", "0", "4095", "5,6-", "5;6", " 5"}) {
    EXPECT_NE(mistake(std::string("switch:trunk=") + trunk), "no mistake was found") << trunk;
  }
  EXPECT_THAT(mistake("switch:trunk=5+"), HasSubstr("trunk: '5+' is no list like 10+20-29"));
  EXPECT_THAT(mistake("switch:vlan=0"), HasSubstr("vlan: must be a number from 1 to 4094"));
  EXPECT_THAT(mistake("switch:vlan=5,trunk=6"), HasSubstr("vlan: goes with neither trunk nor native"));
  EXPECT_THAT(mistake("switch:isolated=true"), HasSubstr("isolated: must be yes or no"));
  EXPECT_THAT(mistake("switch:mac=01:00:5e:00:00:01"),
              HasSubstr("mac: '01:00:5e:00:00:01' is the address of a group"));
  EXPECT_THAT(mistake("switch:mac=00:00:00:00:00:00"),
              HasSubstr("mac: '00:00:00:00:00:00' is the address of nobody"));
  for (const auto* const rate : {"tx-pps", "tx-bps", "rx-pps", "rx-bps", "flood-pps"}) {
    EXPECT_THAT(mistake(std::string("switch:") + rate + "=0"),
                HasSubstr(std::string(rate) + ": must be a number from 1"));
  }
}

TEST(PortKinds, values_are_judged_when_the_port_is_opened) {
  EXPECT_TRUE(open_port("null:send=64", 1));
  for (const auto* const text :
       {"null:send=13", "null:send=70000", "null:send=x", "null:send=64x", "null:send=-1"}) {
    const auto port = open_port(text, 1);
    ASSERT_FALSE(port) << text;
    EXPECT_THAT(port.error(), HasSubstr("send: must be a number from 14 to 65553")) << text;
  }
  EXPECT_THAT(open_port("tap", 1).error(), HasSubstr("exactly one of name and fd"));
  EXPECT_THAT(open_port("tap:name=a,fd=3", 1).error(), HasSubstr("exactly one of name and fd"));
  EXPECT_THAT(open_port("packet:name=ringway-none", 1).error(), HasSubstr("there is no such interface"));
  EXPECT_THAT(open_port("user:hostfwd=tcp:127.0.0.1:2222-:22+", 1).error(),
              HasSubstr("hostfwd: '' is not like"));
  EXPECT_THAT(open_port("xdp", 1).error(), HasSubstr("interface is needed"));
  EXPECT_THAT(open_port("xdp:interface=lo,mode=fast", 1).error(),
              HasSubstr("mode: must be auto, copy or zerocopy"));
  EXPECT_THAT(open_port("xdp:interface=lo,queue=x", 1).error(),
              HasSubstr("queue: must be a number from 0 to 65535"));
  EXPECT_THAT(open_port("xdp:interface=ringway-none", 1).error(), HasSubstr("there is no such interface"));
}

}  // namespace
}  // namespace ringway::tools
