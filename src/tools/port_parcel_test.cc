// Ports on their way to another process.
#include "ringway/tools/port_parcel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ringway/base/notifier.h"

namespace ringway::tools {
namespace {

// As wrap_port(), but with this text.
UniqueFd packet(const std::string& text) {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd in(ends[0]);
  EXPECT_EQ(::send(in.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  return UniqueFd(ends[1]);
}

TEST(PortParcel, all_of_it_arrives_with_as_many_queues_as_a_tap_can_have) {
  for (const size_t count : {0U, 1U, 128U}) {
    ParceledPort sent{.kind = "tap", .mac = "52:54:00:00:00:01", .port = {.words = "found uso", .fds = {}}};
    for (size_t i = 0; i < count; ++i) sent.port.fds.push_back(*make_eventfd());
    auto wrapped = wrap_port(std::move(sent));
    ASSERT_TRUE(wrapped) << wrapped.error().to_string();
    const auto got = unwrap_port(*std::move(wrapped));
    ASSERT_TRUE(got) << got.error();
    EXPECT_EQ(got->kind, "tap");
    EXPECT_EQ(got->mac, "52:54:00:00:00:01");
    EXPECT_EQ(got->port.words, "found uso");
    EXPECT_EQ(got->port.fds.size(), count);
  }
}

TEST(PortParcel, what_is_not_understood_is_refused) {
  EXPECT_TRUE(unwrap_port(packet(R"({"port": "null", "words": ""})")));
  for (const char* text :
       {"", "no JSON", "[]", R"({"port": "tap"})", R"({"words": ""})", R"({"port": 1, "words": ""})",
        R"({"port": "tap", "words": "", "more": 1})", R"({"port": "tap", "words": "", "mac": 7})"}) {
    EXPECT_FALSE(unwrap_port(packet(text))) << text;
  }
  EXPECT_FALSE(unwrap_port(packet(R"({"port": "tap", "words": ")" + std::string(5000, 'x') + "\"}")));
  EXPECT_FALSE(unwrap_port(*make_eventfd()));
}

}  // namespace
}  // namespace ringway::tools
