// Back-ends whose messages are wrong.
#include <fcntl.h>

#include <atomic>

#include "ringway/tools/check_wrong_test.h"

namespace ringway::tools {

Reply device_of_everything(Wrong& self, DeviceRequest request) {
  if (auto* set = as<SetDeviceStateFd>(request)) {
    if (set->direction > 1 || set->phase != 0) return refused("no such transfer");
    EXPECT_EQ(::write(set->fd.get(), "abc", 3), 3);
    return StateChannel{};
  }
  if (as<CheckDeviceState>(request)) return uint64_t{0};
  if (as<GetShmemConfig>(request)) {
    ShmemConfig config{.regions = 1, .sizes = {}};
    config.sizes[3] = 8192;
    return config;
  }
  if (as<GetSharedObject>(request)) return SharedObject{};
  if (as<SetLogBase>(request)) return Done{};
  return offering(self, std::move(request),
                  bit(VHOST_USER_PROTOCOL_F_DEVICE_STATE) | bit(VHOST_USER_PROTOCOL_F_SHMEM) |
                      bit(VHOST_USER_PROTOCOL_F_SHARED_OBJECT) | log_capability);
}

const std::vector<WireCase>& wire_cases() {
  static const std::vector<WireCase> all = {
      {"request_number_in_the_other_order", {1}, in_reply_to<GetFeatures>([](Frame& frame) {
         frame.header.request <<= 24;
       })},
      {"version_3", {2}, in_reply_to<SetFeatures>([](Frame& frame) { frame.header.flags = 7; })},
      {"version_2_from_the_first_reply", {2}, in_reply_to<GetFeatures>([](Frame& frame) {
         frame.header.flags = 6;
       })},
      {"no_reply_flag", {3}, in_reply_to<GetQueueNum>([](Frame& frame) { frame.header.flags = 1; })},
      {"every_request_is_acknowledged",
       {4, 22},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received) frame.header.flags |= user::need_reply_flag;
         return check::just(std::move(frame));
       }},
      {"no_acknowledgements", {4, 22}, without_reply_to<SetFeatures>()},
      {"long_replies", {5}, in_reply_to<GetVringBase>([](Frame& frame) {
         frame.payload.resize(16);
         frame.header.size = 16;
       })},
      {"undefined_flags_are_taken", {17}, in_reply_to<SetConfig>([](Frame& frame) { set_u64(frame, 0); })},
      {"bad_transfers_succeed",
       {19},
       in_reply_to<SetDeviceStateFd>([](Frame& frame) { set_u64(frame, 0x100); }),
       device_of_everything},
      {"regions_that_are_no_pages",
       {21},
       in_reply_to<GetShmemConfig>([](Frame& frame) { frame.payload[8] = std::byte{1}; }),
       device_of_everything},
      {"regions_miscounted",
       {21},
       in_reply_to<GetShmemConfig>([](Frame& frame) { frame.payload[0] = std::byte{5}; }),
       device_of_everything},
      {"answers_twice",
       {22, 125},
       [](Direction direction, Frame frame) {
         Frames both;
         if (is_reply_to(direction, frame, number_of<GetVringBase>)) both.push_back(copy_of(frame));
         both.push_back(std::move(frame));
         return both;
       }},
      {"protocol_features_are_needed",
       {27},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<SetFeatures>)
           set_u64(frame, u64_in(frame) | bit(VHOST_USER_F_PROTOCOL_FEATURES));
         return check::just(std::move(frame));
       }},
      {"protocol_features_unanswered", {28, 89}, without_reply_to<GetProtocolFeatures>()},
      {"features_change",
       {88},
       [count = std::make_shared<std::atomic<int>>(0)](Direction direction, Frame frame) {
         if (is_reply_to(direction, frame, number_of<GetFeatures>))
           set_u64(frame, u64_in(frame) ^ (static_cast<uint64_t>(++*count) << 40));
         return check::just(std::move(frame));
       }},
      {"protocol_features_change",
       {89},
       [count = std::make_shared<std::atomic<int>>(0)](Direction direction, Frame frame) {
         if (is_reply_to(direction, frame, number_of<GetProtocolFeatures>))
           set_u64(frame, u64_in(frame) ^ (static_cast<uint64_t>(++*count) << 40));
         return check::just(std::move(frame));
       }},
      {"state_is_bad",
       {61, 66, 127},
       in_reply_to<CheckDeviceState>([](Frame& frame) { set_u64(frame, 1); }),
       device_of_everything},
      {"state_is_unchecked", {61, 66, 127}, without_reply_to<CheckDeviceState>(), device_of_everything},
      {"in_band_alone",
       {87},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<SetProtocolFeatures>)
           set_u64(frame, u64_in(frame) | bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                              bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
         return check::just(std::move(frame));
       }},
      {"log_base_unanswered", {94}, without_reply_to<SetLogBase>(), device_of_everything},
      {"short_configuration", {107}, in_reply_to<GetConfig>([](Frame& frame) {
         if (frame.payload.size() < 16) return;
         frame.payload.resize(frame.payload.size() - 1);
         frame.header.size -= 1;
       })},
      {"configuration_always_from_0",
       {107},
       [](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<GetConfig>)
           std::memset(frame.payload.data(), 0, 4);
         return check::just(std::move(frame));
       }},
      {"removed_files_are_kept",
       {121},
       [kept = std::make_shared<std::vector<UniqueFd>>()](Direction direction, Frame frame) {
         if (direction == Direction::received && frame.header.request == number_of<RemMemReg>) {
           for (UniqueFd& fd : frame.fds) kept->push_back(std::move(fd));
           frame.fds.clear();
         }
         return check::just(std::move(frame));
       }},
      {"objects_out_of_nothing",
       {123},
       in_reply_to<GetSharedObject>(
           [](Frame& frame) { frame.fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }),
       device_of_everything},
      {"every_answer_is_success",
       {124},
       [](Direction direction, Frame frame) {
         const bool is_ack = is_reply_to(direction, frame, number_of<AddMemReg>) ||
                             is_reply_to(direction, frame, number_of<RemMemReg>);
         if (is_ack) set_u64(frame, 0);
         return check::just(std::move(frame));
       }},
      {"every_answer_is_failure", {124}, in_reply_to<SetFeatures>([](Frame& frame) { set_u64(frame, 1); })},
      {"error_with_a_channel",
       {126},
       in_reply_to<SetDeviceStateFd>([](Frame& frame) {
         set_u64(frame, 1);
         frame.fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
       }),
       device_of_everything},
      {"no_channel_and_no_word_of_it",
       {126},
       in_reply_to<SetDeviceStateFd>([](Frame& frame) { set_u64(frame, 0); }),
       device_of_everything},
      {"shared_memory_changes",
       {128},
       [count = std::make_shared<std::atomic<int>>(0)](Direction direction, Frame frame) {
         if (is_reply_to(direction, frame, number_of<GetShmemConfig>) && ++*count > 50)
           frame.payload[20] = std::byte{1};
         return check::just(std::move(frame));
       },
       device_of_everything},
  };
  return all;
}

namespace {

class CheckOfWrongMessages : public testing::TestWithParam<WireCase> {};

TEST_P(CheckOfWrongMessages, are_found_out) {
  MeddledTarget target(GetParam().change, decorator_of(GetParam().answer));
  check::Options options = options_for(GetParam().numbers);
  options.patience.answer = std::chrono::milliseconds(600);
  options.checks_life = false;
  const auto rows = check::check_back_end(target, options);
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->size(), GetParam().numbers.size());
  for (const check::Row& row : *rows) {
    EXPECT_EQ(row.finding.verdict, Verdict::fail)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
    EXPECT_NE(row.finding.detail.find("["), std::string::npos) << "no bytes: " << row.finding.detail;
  }
}

INSTANTIATE_TEST_SUITE_P(messages, CheckOfWrongMessages, testing::ValuesIn(wire_cases()),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace ringway::tools
