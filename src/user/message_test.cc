#include "ringway/user/message.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace ringway::user {
namespace {

using ::testing::HasSubstr;
using vhost::catalogue;
using vhost::DeviceRequest;
using vhost::FrontEndRequest;

TEST(Message, ids_are_those_of_the_specification) {
  EXPECT_STREQ(message_name<DeviceRequest>(1), "GET_FEATURES");
  EXPECT_STREQ(message_name<DeviceRequest>(21), "SET_BACKEND_REQ_FD");
  EXPECT_STREQ(message_name<DeviceRequest>(33), "GPU_SET_SOCKET");
  EXPECT_STREQ(message_name<DeviceRequest>(45), "GET_VRING_BASE_SKIP_DRAIN");
  EXPECT_STREQ(message_name<FrontEndRequest>(8), "BACKEND_SHARED_OBJECT_LOOKUP");
  EXPECT_STREQ(message_name<DeviceRequest>(0), "unknown message");
  EXPECT_STREQ(message_name<DeviceRequest>(46), "unknown message");
  EXPECT_STREQ(message_name<FrontEndRequest>(11), "unknown message");
}

TEST(Message, no_two_have_the_same_name) {
  std::set<std::string> names;
  for (const auto& info : catalogue<DeviceRequest>) EXPECT_TRUE(names.insert(info.name).second) << info.name;
  for (const auto& info : catalogue<FrontEndRequest>)
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
}

template <class Request>
void find_all(const std::string& document, size_t prefix) {
  for (const Message& message : messages<Request>) {
    const auto& info = catalogue<Request>[message.id - 1];
    EXPECT_THAT(document, HasSubstr(fmt::format("\n| {} | {} | {} |", message.id, info.name + prefix,
                                                info.older_name)));
  }
}

TEST(Message, the_document_has_every_message_by_number_and_name) {
  const auto path = std::filesystem::path(__FILE__).parent_path() / "../../docs/protocol.md";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << "without the sources";
  const std::string document{std::istreambuf_iterator<char>(file), {}};
  find_all<DeviceRequest>(document, 0);
  find_all<FrontEndRequest>(document, std::string("BACKEND_").size());
  for (unsigned number = 0; number < vhost::protocol_feature_count; ++number) {
    EXPECT_THAT(document,
                HasSubstr(fmt::format("\n| {} | {} |", number, vhost::protocol_feature_name(number))));
  }
}

}  // namespace
}  // namespace ringway::user
