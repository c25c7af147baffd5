// What holds for all checks: of a device that is right, of one that cannot be judged, of the table itself.
#include "ringway/tools/check_wrong_test.h"

#include <fcntl.h>

namespace ringway::tools {
namespace {

// Of a network device: frames on a ring that is disabled must go somewhere.
TEST(CheckOfEverything, finds_a_disabled_ring_that_is_not_processed) {
  LocalTarget target;
  check::Options options = options_for({31});
  options.kind = check::find_kind("net");
  options.patience.answer = std::chrono::milliseconds(600);
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->at(0).finding.verdict, Verdict::fail) << rows->at(0).finding.detail;
}

// The same device, right: no check fails because of what else it has.
TEST(CheckOfEverything, finds_nothing_wrong_in_a_device_that_has_more_to_offer) {
  MeddledTarget target([](Direction, Frame frame) { return check::just(std::move(frame)); },
                       decorator_of(device_of_everything));
  const auto rows = check::check_back_end(target, options_for({19, 21, 61, 66, 94, 123, 126, 127, 128}));
  ASSERT_TRUE(rows) << rows.error().to_string();
  for (const check::Row& row : *rows) {
    EXPECT_EQ(row.finding.verdict, Verdict::pass)
        << "N" << row.requirement->number << ": " << row.finding.detail;
  }
}

// It ends when its front-end leaves, as it may.
class OneShotTarget final : public check::Target {
 public:
  Result<std::unique_ptr<check::Lease>> connect() override {
    if (std::exchange(used_, true)) return os_failure("cannot connect", ECONNREFUSED);
    return target_.connect();
  }

 private:
  LocalTarget target_;
  bool used_ = false;
};

TEST(CheckOfEverything, asks_for_restart_where_a_back_end_serves_one_front_end_only) {
  OneShotTarget target;
  const auto rows = check::check_back_end(target, options_for());
  ASSERT_FALSE(rows);
  EXPECT_NE(rows.error().to_string().find("say --restart"), std::string::npos);
}

// A disk that takes any MTU and any endianness: without acknowledgements that cannot be seen.
TEST(CheckOfEverything, does_not_take_silence_for_success) {
  const auto takes_everything = [](Wrong& self, DeviceRequest request) -> Reply {
    if (as<NetSetMtu>(request) || as<SetVringEndian>(request)) return refused("silently");
    constexpr uint64_t extra = bit(VHOST_USER_PROTOCOL_F_MTU) | bit(VHOST_USER_PROTOCOL_F_CROSS_ENDIAN);
    constexpr uint64_t mtu = bit(3);
    return offering(self, std::move(request), extra, mtu);
  };
  ListeningTarget target(decorator_of(takes_everything));
  const std::string path = target.path() + ".proxy";
  ProxyDevice proxy(
      {.back_end = target.path(), .taken = {.capabilities = bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)}});
  auto listener = user::Listener::start().value();
  ASSERT_TRUE(listener->listen(path, proxy));
  check::SocketTarget socket(path, std::chrono::seconds(2));
  const auto rows = check::check_back_end(socket, options_for({103, 106}));
  ASSERT_TRUE(rows) << rows.error().to_string();
  for (const check::Row& row : *rows)
    EXPECT_EQ(row.finding.verdict, Verdict::not_testable) << row.finding.detail;
  listener->stop();
}

// A state that never ends must not hold up the checks.
TEST(CheckOfEverything, gives_up_a_state_channel_that_does_not_end) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reading(ends[0]);
  const UniqueFd writing(ends[1]);
  MeddledTarget target(in_reply_to<SetDeviceStateFd>([&](Frame& frame) {
                         set_u64(frame, 0);
                         frame.fds.clear();
                         frame.fds.push_back(reading.duplicate().value());
                       }),
                       decorator_of(device_of_everything));
  check::Options options = options_for({66});
  options.patience.answer = std::chrono::milliseconds(600);
  options.checks_life = false;
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->at(0).finding.verdict, Verdict::fail);
  EXPECT_NE(rows->at(0).finding.detail.find("does not end"), std::string::npos) << rows->at(0).finding.detail;
}

// Every check that there is has a back-end that it finds wrong.
TEST(CheckOfEverything, has_a_wrong_back_end_for_each_check) {
  std::set<unsigned> caught;
  for (const Case& one : cases()) caught.insert(one.numbers.begin(), one.numbers.end());
  for (const WireCase& one : wire_cases()) caught.insert(one.numbers.begin(), one.numbers.end());
  caught.insert(31);  // below
  // Postcopy needs a userfaultfd, which may be forbidden here.
  caught.insert({59, 93, 111, 112, 113});
  for (const check::Requirement& one : check::requirements()) {
    const bool is_checked = one.back_end.on_frames != nullptr || one.back_end.on_requests != nullptr;
    EXPECT_TRUE(!is_checked || caught.contains(one.number)) << "N" << one.number << " " << one.sentence;
  }
}

}  // namespace
}  // namespace ringway::tools
