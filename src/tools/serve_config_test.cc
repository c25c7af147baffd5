#include "ringway/tools/serve_config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>

namespace ringway::tools {
namespace {

using testing::HasSubstr;

class ServeConfigFile : public testing::Test {
 protected:
  Parsed<ServeConfig> read(std::string_view text) {
    std::FILE* file = std::fopen(path_.c_str(), "w");
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
    return read_serve_config(path_);
  }
  std::string mistake(std::string_view text) {
    const auto config = read(text);
    return config ? "no mistake was found" : config.error();
  }
  void TearDown() override { ::unlink(path_.c_str()); }

  const std::string path_ = fmt::format("{}/serve-config-{}.toml", testing::TempDir(), ::getpid());
};

TEST_F(ServeConfigFile, every_option_of_two_devices_is_read) {
  const auto config = read(R"(
workers = 2
cpus = "0,1"
poll = "never"

[[device]]
socket-path = "/run/a.sock"
blk-file = "/srv/a.img"
read-only = true
direct = true
queues = 4
serial = "disk-a"

[[device]]
type = "blk"
connect = "/run/b.sock"
memory = "1G"
)");
  ASSERT_TRUE(config) << config.error();
  EXPECT_EQ(config->process.workers, 2U);
  EXPECT_EQ(config->process.cpus, "0,1");
  EXPECT_EQ(config->process.poll, "never");
  ASSERT_EQ(config->devices.size(), 2U);
  EXPECT_EQ(config->devices[0].blk_file, "/srv/a.img");
  EXPECT_TRUE(config->devices[0].read_only);
  EXPECT_TRUE(config->devices[0].direct);
  EXPECT_EQ(config->devices[0].queues, 4U);
  EXPECT_EQ(config->devices[0].serial, "disk-a");
  EXPECT_EQ(config->devices[1].connect, "/run/b.sock");
  EXPECT_EQ(config->devices[1].memory, uint64_t{1} << 30U);
}

TEST_F(ServeConfigFile, a_mistake_is_told_with_file_line_and_key) {
  EXPECT_THAT(mistake("workers = 1\nfoo = 2\n"), HasSubstr(path_ + ":2: foo: unknown key"));
  EXPECT_THAT(mistake("[[device]]\nsocket-path = \"s\"\nmemory = \"1G\"\nqueus = 2\n"),
              HasSubstr(":4: queus: unknown key"));
  EXPECT_THAT(mistake("[[device]]\nsocket-path = 7\n"), HasSubstr(":2: socket-path: must be a string"));
  EXPECT_THAT(mistake("[[device]]\nread-only = \"yes\"\n"),
              HasSubstr(":2: read-only: must be true or false"));
  EXPECT_THAT(mistake("[[device]]\nmemory = \"1Q\"\n"), HasSubstr(":2: memory: '1Q' has an unknown unit"));
  EXPECT_THAT(mistake("[[device]]\nqueues = -1\n"), HasSubstr(":2: queues: must be a number, 0 or more"));
  EXPECT_THAT(mistake("[[device]]\nqueues = \n"), HasSubstr(path_ + ":2: "));
  EXPECT_THAT(mistake("device = 1\n"), HasSubstr(":1: device: must be an array of tables"));
}

TEST_F(ServeConfigFile, options_that_do_not_go_together_are_refused) {
  const std::string device = "[[device]]\nsocket-path = \"s\"\n";
  EXPECT_THAT(mistake(device), HasSubstr(":1: exactly one of blk-file, memory and null"));
  EXPECT_THAT(mistake(device + "memory = 512\nnull = 512\n"),
              HasSubstr("exactly one of blk-file, memory and null"));
  EXPECT_THAT(mistake("[[device]]\nmemory = 512\n"), HasSubstr("exactly one of socket-path, fd and connect"));
  EXPECT_THAT(mistake(device + "memory = 512\nserial = \"123456789012345678901\"\n"),
              HasSubstr("serial: must be at most"));
  EXPECT_THAT(mistake(device + "memory = 512\ntype = \"floppy\"\n"),
              HasSubstr("there is no device 'floppy'"));
  EXPECT_THAT(mistake(""), HasSubstr("there is no [[device]]"));
}

TEST_F(ServeConfigFile, a_value_that_cannot_be_is_told_with_the_line_of_its_key) {
  const std::string device = "[[device]]\nsocket-path = \"s\"\nmemory = 512\n";
  EXPECT_THAT(mistake(device + "read-only = true\nqueues = 257\n"), HasSubstr(path_ + ":5: queues: must be"));
  EXPECT_THAT(mistake(device + "direct = true\n"), HasSubstr(":4: direct: goes with blk-file only"));
  EXPECT_THAT(mistake("\nworkers = 0\n" + device), HasSubstr(path_ + ":2: workers: must be 1 to 1024"));
  EXPECT_THAT(mistake("\n\ncpus = \"3-1\"\n" + device), HasSubstr(":3: cpus: '3-1' is not a list"));
  EXPECT_THAT(mistake("verbose = true\npoll = \"often\"\n" + device), HasSubstr(":2: poll: 'often' is not"));
}

TEST_F(ServeConfigFile, two_devices_at_one_place_are_told_with_both_lines) {
  const std::string device = "[[device]]\nmemory = 512\nsocket-path = \"s\"\n";
  EXPECT_THAT(mistake(device + device), HasSubstr(":6: socket-path: is that of the device in line 1 too"));
  const std::string inherited = "[[device]]\nmemory = 512\nfd = 3\n";
  EXPECT_THAT(mistake(device + inherited + inherited),
              HasSubstr(":9: fd: is that of the device in line 4 too"));
  EXPECT_TRUE(read(device + inherited));
}

TEST_F(ServeConfigFile, a_network_device_is_read_and_its_mistakes_are_told) {
  const std::string device = "[[device]]\ntype = \"net\"\nsocket-path = \"s\"\n";
  const auto config =
      read(device + "port = \"tap:name=tap0\"\nmac = \"52:54:00:12:34:56\"\nmtu = 9000\nqueues = 4\n");
  ASSERT_TRUE(config) << config.error();
  EXPECT_EQ(config->devices[0].port, "tap:name=tap0");
  EXPECT_EQ(config->devices[0].mtu, 9000U);
  EXPECT_THAT(mistake(device), HasSubstr(":1: port is needed"));
  EXPECT_THAT(mistake(device + "port = \"cable\"\n"), HasSubstr("port: there is no port 'cable'"));
  EXPECT_THAT(mistake(device + "port = \"null\"\nmac = \"52:54\"\n"),
              HasSubstr("mac: '52:54' is not an address"));
  EXPECT_THAT(mistake(device + "port = \"null\"\nmac = \"00:00:00:00:00:00\"\n"),
              HasSubstr(":5: mac: '00:00:00:00:00:00' is the address of nobody"));
  EXPECT_THAT(mistake(device + "port = \"null\"\nmac = \"33:33:00:00:00:01\"\n"),
              HasSubstr(":5: mac: '33:33:00:00:00:01' is the address of a group"));
  EXPECT_THAT(mistake(device + "port = \"switch:trunk=5+\"\n"),
              HasSubstr(":4: port: trunk: '5+' is no list"));
  EXPECT_THAT(mistake(device + "port = \"null\"\nmtu = 67\n"), HasSubstr("mtu: must be 68 to 65535"));
  EXPECT_THAT(mistake(device + "port = \"xdp:interface=eth0\"\nmtu = 3819\n"),
              HasSubstr("mtu: AF_XDP takes 3818 at most"));
  EXPECT_THAT(mistake(device + "port = \"null\"\nqueues = 129\n"), HasSubstr("queues: must be 1 to 128"));
  EXPECT_THAT(mistake(device + "port = \"null\"\nblk-file = \"disk\"\n"),
              HasSubstr(":5: blk-file: unknown key"));
}

TEST_F(ServeConfigFile, two_switches_of_one_name_are_refused) {
  const std::string text =
      "[[device]]\ntype = \"net\"\nsocket-path = \"a\"\nport = \"switch:name=a\"\n"
      "[[switch]]\nname = \"a\"\n[[switch]]\nmacs = 64\nname = ";
  EXPECT_THAT(mistake(text + "\"a\"\n"), HasSubstr(":9: switch: name: there is another switch 'a'"));
  EXPECT_TRUE(read(text + "\"b\"\n"));
}

TEST_F(ServeConfigFile, where_switches_are_described_there_are_no_others) {
  const auto device = [](std::string_view port) {
    return fmt::format("[[device]]\ntype = \"net\"\nsocket-path = \"{0}\"\nport = \"{0}\"\n", port);
  };
  const std::string fabric = "[[switch]]\nname = \"sw0\"\n";
  EXPECT_TRUE(read(device("switch:name=sw1") + device("switch"))) << "none is described";
  EXPECT_TRUE(read(device("switch:name=sw0") + device("null") + fabric));
  EXPECT_THAT(mistake(device("null") + device("switch:name=sw1,vlan=5") + fabric),
              HasSubstr(":8: port: there is no switch 'sw1' among those that are described"));
  EXPECT_THAT(mistake(device("switch") + fabric), HasSubstr(":4: port: there is no switch 'switch'"));
  EXPECT_THAT(mistake(device("null") + fabric + "uplink = [{port = \"switch:name=sw1\"}]\n"),
              HasSubstr(":7: switch: uplink: switch:name=sw1: there is no switch 'sw1'"));
}

// A frame for everybody would go round until the stack ends.
TEST_F(ServeConfigFile, switches_that_are_connected_in_a_loop_are_refused) {
  const auto connected = [&](std::string_view first, std::string_view second) {
    return mistake(
        fmt::format("[[device]]\ntype = \"net\"\nsocket-path = \"a\"\nport = \"switch:name=a\"\n"
                    "[[switch]]\nname = \"a\"\nuplink = [{}]\n[[switch]]\nname = \"b\"\nuplink = [{}]\n"
                    "[[switch]]\nname = \"switch\"\nuplink = [{{port = \"null\"}}]\n",
                    first, second));
  };
  const auto to = [](std::string_view port) { return fmt::format("{{port = \"{}\"}}", port); };
  EXPECT_EQ(connected(to("switch:name=b"), to("switch:vlan=10")), "no mistake was found");
  EXPECT_THAT(connected(to("switch:name=a"), ""), HasSubstr(":7: switch: uplink: switch:name=a connects"));
  EXPECT_THAT(connected(to("switch:name=b"), to("switch:name=a")), HasSubstr(":10: switch: uplink:"));
  EXPECT_THAT(connected(to("switch:name=b") + ", " + to("switch:name=b"), ""), HasSubstr(":7: switch:"));
  EXPECT_THAT(connected(to("switch") + ", " + to("switch:name=b"), to("switch")), HasSubstr(":10: switch:"));
}

TEST_F(ServeConfigFile, a_file_that_is_not_there_is_named) {
  const auto config = read_serve_config("/nonexistent/ringway.toml");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error(), HasSubstr("/nonexistent/ringway.toml: "));
}

}  // namespace
}  // namespace ringway::tools
