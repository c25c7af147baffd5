// Front-ends that say something wrong, on purpose: the judgement of that rule must find it.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ringway/check/conversation.h"
#include "ringway/check/runner.h"
#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

using namespace vhost;
using check::Bytes;
using check::Conversation;
using check::payload;
using check::Verdict;
using user::Direction;
using user::Frame;

constexpr uint64_t guest = uint64_t{1} << 32;
constexpr uint64_t front_end = 0x7000'0000'0000;
constexpr uint64_t memory_bytes = 1 << 20;
constexpr uint64_t bit_30 = bit(VHOST_USER_F_PROTOCOL_FEATURES);

template <class T>
constexpr uint32_t id = check::id<T>;

// A front-end that says what it is told to.
class Speaker {
 public:
  Speaker& say(uint32_t request, Bytes bytes = {}, std::vector<UniqueFd> fds = {},
               uint32_t flags = user::version) {
    Frame frame = check::Wire::frame(request, std::move(bytes), std::move(fds));
    frame.header.flags = flags;
    conversation_.hear(Direction::received, frame);
    return *this;
  }
  Speaker& late_fd() {
    Frame frame = check::Wire::frame(id<SetVringKick>, payload(uint64_t{0}));
    frame.fd_fault = "file descriptors came after the first bytes of the message";
    conversation_.hear(Direction::received, frame);
    return *this;
  }
  Speaker& hear(uint32_t request, uint64_t value) {
    conversation_.hear(Direction::sent, check::Wire::frame(request, payload(value)));
    return *this;
  }
  // Up to SET_FEATURES, as it should be.
  Speaker& greet(uint64_t features, uint64_t protocol) {
    say(id<GetFeatures>).hear(id<GetFeatures>, features | bit_30);
    say(id<GetProtocolFeatures>).hear(id<GetProtocolFeatures>, protocol);
    say(id<SetProtocolFeatures>, payload(protocol)).say(id<SetOwner>);
    return say(id<SetFeatures>, payload(features | bit_30));
  }
  Speaker& share() { return say(id<SetMemTable>, table({{guest, front_end}}), files(1)); }

  struct Place {
    uint64_t guest, user;
  };
  static Bytes region(Place at, uint64_t size = memory_bytes) {
    return payload(at.guest, size, at.user, uint64_t{0});
  }
  static Bytes table(const std::vector<Place>& places, uint64_t size = memory_bytes) {
    Bytes bytes = payload(static_cast<uint32_t>(places.size()), uint32_t{0});
    for (const Place& place : places) {
      const Bytes one = region(place, size);
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    return bytes;
  }
  static Bytes one_region(Place at) {
    Bytes bytes = payload(uint64_t{0});
    const Bytes one = region(at);
    bytes.insert(bytes.end(), one.begin(), one.end());
    return bytes;
  }
  static std::vector<UniqueFd> files(size_t count) {
    std::vector<UniqueFd> fds;
    for (size_t i = 0; i < count; ++i) {
      fds.emplace_back(::memfd_create("front-end", MFD_CLOEXEC));
      EXPECT_EQ(::ftruncate(fds.back().get(), memory_bytes), 0);
    }
    return fds;
  }
  static std::vector<UniqueFd> event() {
    std::vector<UniqueFd> fds;
    fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
    return fds;
  }
  static std::vector<UniqueFd> socket() {
    std::vector<UniqueFd> fds;
    fds.push_back(std::move((*user::socket_pair())[0]));
    return fds;
  }
  static Bytes address(uint32_t ring, uint64_t desc = front_end, uint32_t flags = 0, uint64_t log = 0) {
    return payload(ring, flags, desc, front_end + 8192, front_end + 4096, log);
  }
  [[nodiscard]] const Conversation& conversation() const { return conversation_; }

 private:
  Conversation conversation_;
};

constexpr uint64_t capability(unsigned number) { return bit(number); }
constexpr uint64_t slots = capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
constexpr uint64_t mq = capability(VHOST_USER_PROTOCOL_F_MQ);
constexpr uint64_t version_1 = uint64_t{1} << 32;
constexpr uint64_t iommu = uint64_t{1} << 33;

struct Case {
  const char* name;
  std::set<unsigned> numbers;  // all of these fail
  std::function<void(Speaker&)> speak;
};

const std::vector<Case>& cases() {
  using S = Speaker;
  static const std::vector<Case> all = {
      {"no_such_message", {1}, [](S& s) { s.say(77); }},
      {"version_2", {2}, [](S& s) { s.say(id<GetFeatures>, {}, {}, 2); }},
      {"reply_flag", {3}, [](S& s) { s.say(id<GetFeatures>, {}, {}, 5); }},
      {"need_reply_too_early", {4}, [](S& s) { s.say(id<SetOwner>, {}, {}, 9); }},
      {"size", {5}, [](S& s) { s.say(id<SetVringNum>, payload(uint32_t{0})); }},
      {"base_of_20_bits",
       {6},
       [](S& s) { s.greet(version_1, 0).say(id<SetVringBase>, payload(uint32_t{0}, uint32_t{0x54321})); }},
      {"addresses_of_44_bytes", {8}, [](S& s) { s.say(id<SetVringAddr>, Bytes(44)); }},
      {"ring_outside_of_memory",
       {9},
       [](S& s) { s.greet(version_1, 0).share().say(id<SetVringAddr>, S::address(0, 0x1000)); }},
      {"guest_and_user_differ",
       {10},
       [](S& s) { s.greet(version_1, capability(VHOST_USER_PROTOCOL_F_GPA_ADDRESSES)).share(); }},
      {"guest_addresses_overlap",
       {11},
       [](S& s) {
         s.say(id<SetMemTable>, S::table({{guest, front_end}, {guest + 4096, front_end * 2}}), S::files(2));
       }},
      {"user_addresses_overlap",
       {12},
       [](S& s) {
         s.say(id<SetMemTable>, S::table({{guest, front_end}, {guest * 2, front_end + 4096}}), S::files(2));
       }},
      {"added_over_another",
       {13},
       [](S& s) {
         s.greet(version_1, slots).say(id<AddMemReg>, S::one_region({guest, front_end}), S::files(1));
         s.say(id<AddMemReg>, S::one_region({guest + 4096, front_end * 2}), S::files(1));
       }},
      {"nine_regions", {14}, [](S& s) { s.say(id<SetMemTable>, payload(uint32_t{9}, uint32_t{0})); }},
      {"iotlb_type_5",
       {16},
       [](S& s) {
         s.greet(version_1 | iommu, 0)
             .say(id<UpdateIotlb>,
                  payload(guest, memory_bytes, front_end, uint8_t{3}, uint8_t{5}, uint16_t{0}, uint32_t{0}));
       }},
      {"config_flags_2",
       {17},
       [](S& s) { s.say(id<GetConfig>, payload(uint32_t{0}, uint32_t{1}, uint32_t{2}, uint8_t{0})); }},
      {"state_direction_2",
       {19, 126},
       [](S& s) { s.say(id<SetDeviceStateFd>, payload(uint32_t{2}, uint32_t{0}), S::event()); }},
      {"fd_with_an_owner", {23}, [](S& s) { s.say(id<SetOwner>, {}, S::event()); }},
      {"late_fd", {24}, [](S& s) { s.late_fd(); }},
      {"reset_without_its_feature", {27, 117}, [](S& s) { s.greet(version_1, mq).say(id<ResetDevice>); }},
      {"enable_of_2", {39}, [](S& s) { s.say(id<SetVringEnable>, payload(uint32_t{0}, uint32_t{2})); }},
      {"more_queues_than_told",
       {46},
       [](S& s) {
         s.greet(version_1, mq)
             .hear(id<GetQueueNum>, 1)
             .say(id<SetVringNum>, payload(uint32_t{1}, uint32_t{64}));
       }},
      {"two_rings_at_one_place",
       {47},
       [](S& s) { s.say(id<SetVringAddr>, S::address(0)).say(id<SetVringAddr>, S::address(1)); }},
      {"log_too_small",
       {53},
       [](S& s) {
         s.greet(version_1, capability(VHOST_USER_PROTOCOL_F_LOG_SHMFD))
             .share()
             .say(id<SetLogBase>, payload(uint64_t{4096}, uint64_t{0}), S::files(1));
       }},
      {"used_ring_outside_of_the_log",
       {56},
       [](S& s) {
         s.say(id<SetLogBase>, payload(uint64_t{4096}, uint64_t{0}), S::files(1))
             .say(id<SetVringAddr>, S::address(0, front_end, 1, guest));
       }},
      {"used_ring_that_ends_outside_of_the_log",
       {56},
       [](S& s) {
         s.say(id<SetLogBase>, payload(uint64_t{1}, uint64_t{0}), S::files(1))
             .say(id<SetVringNum>, payload(uint32_t{0}, uint32_t{64}))
             .say(id<SetVringAddr>, S::address(0, front_end, 1, 8 * 4096 - 100));
       }},
      {"used_ring_outside_of_the_second_log",
       {56},
       [](S& s) {
         s.say(id<SetLogBase>, payload(uint64_t{4096}, uint64_t{0}), S::files(1))
             .say(id<SetLogBase>, payload(uint64_t{1}, uint64_t{0}), S::files(1))
             .say(id<SetVringAddr>, S::address(0, front_end, 1, 8 * 4096))
             .say(id<SetLogBase>, payload(uint64_t{4096}, uint64_t{0}), S::files(1));
       }},
      {"postcopy_with_slots",
       {60},
       [](S& s) {
         s.greet(version_1, slots | capability(VHOST_USER_PROTOCOL_F_PAGEFAULT)).say(id<PostcopyAdvise>);
       }},
      {"slots_without_their_feature", {68}, [](S& s) { s.greet(version_1, mq).say(id<GetMaxMemSlots>); }},
      {"iotlb_outside_of_memory",
       {70},
       [](S& s) {
         s.greet(version_1 | iommu, 0)
             .share()
             .say(id<UpdateIotlb>, payload(guest, memory_bytes, uint64_t{4096}, uint8_t{3}, uint8_t{2},
                                           uint16_t{0}, uint32_t{0}));
       }},
      {"iotlb_update_that_ends_outside_of_memory",
       {70},
       [](S& s) {
         s.greet(version_1 | iommu, 0)
             .share()
             .say(id<UpdateIotlb>, payload(guest, memory_bytes * 2, front_end, uint8_t{3}, uint8_t{2},
                                           uint16_t{0}, uint32_t{0}));
       }},
      {"channel_without_its_feature",
       {74, 104},
       [](S& s) { s.greet(version_1, mq).say(id<SetFrontEnd>, {}, S::socket()); }},
      {"channel_that_is_no_socket", {75}, [](S& s) { s.say(id<SetFrontEnd>, {}, S::event()); }},
      {"inflight_of_no_queues",
       {77},
       [](S& s) {
         s.greet(version_1, capability(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
             .say(id<GetInflightFd>,
                  payload(uint64_t{0}, uint64_t{0}, uint16_t{0}, uint16_t{0}, uint32_t{0}));
       }},
      {"in_band_alone",
       {87},
       [](S& s) {
         s.say(id<SetProtocolFeatures>, payload(capability(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)));
       }},
      {"features_that_were_not_offered",
       {88},
       [](S& s) { s.hear(id<GetFeatures>, version_1).say(id<SetFeatures>, payload(version_1 | 2)); }},
      {"protocol_features_without_bit_30",
       {89},
       [](S& s) { s.hear(id<GetFeatures>, version_1).say(id<GetProtocolFeatures>); }},
      {"no_owner", {90}, [](S& s) { s.share(); }},
      {"reset_owner", {91}, [](S& s) { s.say(id<ResetOwner>); }},
      {"region_without_a_file",
       {92, 120},
       [](S& s) { s.say(id<SetMemTable>, S::table({{guest, front_end}})); }},
      {"region_behind_its_file",
       {92, 120},
       [](S& s) { s.say(id<SetMemTable>, S::table({{guest, front_end}}, memory_bytes * 4), S::files(1)); }},
      {"log_without_a_file",
       {94},
       [](S& s) {
         s.greet(version_1, capability(VHOST_USER_PROTOCOL_F_LOG_SHMFD))
             .say(id<SetLogBase>, payload(uint64_t{4096}, uint64_t{0}));
       }},
      {"base_asked_with_1", {96}, [](S& s) { s.say(id<GetVringBase>, payload(uint32_t{0}, uint32_t{1})); }},
      {"kick_without_fd_or_bit", {97}, [](S& s) { s.say(id<SetVringKick>, payload(uint64_t{0})); }},
      {"call_with_fd_and_bit",
       {98},
       [](S& s) { s.say(id<SetVringCall>, payload(uint64_t{0x100}), S::event()); }},
      {"err_with_fd_and_bit",
       {99},
       [](S& s) { s.say(id<SetVringErr>, payload(uint64_t{0x100}), S::event()); }},
      {"queue_number_without_mq", {100}, [](S& s) { s.greet(version_1, 0).say(id<GetQueueNum>); }},
      {"enable_without_bit_30",
       {101},
       [](S& s) {
         s.hear(id<GetFeatures>, version_1).say(id<SetVringEnable>, payload(uint32_t{0}, uint32_t{1}));
       }},
      {"rarp_without_its_feature", {102}, [](S& s) { s.say(id<SendRarp>, payload(uint64_t{1})); }},
      {"mtu_without_its_feature", {103}, [](S& s) { s.say(id<NetSetMtu>, payload(uint64_t{1500})); }},
      {"iotlb_without_its_feature", {105}, [](S& s) { s.say(id<UpdateIotlb>, Bytes(32)); }},
      {"endianness_2",
       {106},
       [](S& s) {
         s.greet(0, capability(VHOST_USER_PROTOCOL_F_CROSS_ENDIAN))
             .say(id<SetVringEndian>, payload(uint32_t{0}, uint32_t{2}));
       }},
      {"config_of_another_size",
       {107},
       [](S& s) {
         s.greet(version_1, capability(VHOST_USER_PROTOCOL_F_CONFIG))
             .say(id<GetConfig>, payload(uint32_t{0}, uint32_t{60}, uint32_t{0}, uint8_t{0}));
       }},
      {"crypto_without_its_feature",
       {109, 110},
       [](S& s) { s.say(id<CloseCryptoSession>, payload(uint64_t{0})); }},
      {"gpu_socket_that_is_none", {116}, [](S& s) { s.say(id<GpuSetSocket>, {}, S::event()); }},
      {"in_band_kick_of_1", {118}, [](S& s) { s.say(id<VringKick>, payload(uint32_t{0}, uint32_t{1})); }},
      {"more_regions_than_slots",
       {119},
       [](S& s) {
         s.greet(version_1, slots)
             .hear(id<GetMaxMemSlots>, 1)
             .say(id<AddMemReg>, S::one_region({guest, front_end}), S::files(1));
         s.say(id<AddMemReg>, S::one_region({guest * 2, front_end * 2}), S::files(1));
       }},
      {"file_with_a_removal",
       {121},
       [](S& s) { s.say(id<RemMemReg>, S::one_region({guest, front_end}), S::files(1)); }},
      {"status_without_its_feature", {122}, [](S& s) { s.say(id<GetStatus>); }},
      {"object_without_its_feature", {123}, [](S& s) { s.say(id<GetSharedObject>, Bytes(16)); }},
      {"skip_drain_alone",
       {129},
       [](S& s) {
         s.say(id<SetProtocolFeatures>, payload(capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN)));
       }},
  };
  return all;
}

class JudgementOf : public testing::TestWithParam<Case> {};

TEST_P(JudgementOf, what_is_wrong_finds_it) {
  Speaker speaker;
  GetParam().speak(speaker);
  const auto rows = check::judge_front_end(speaker.conversation(), GetParam().numbers);
  EXPECT_EQ(rows.size(), GetParam().numbers.size());
  for (const check::Row& row : rows) {
    EXPECT_EQ(row.finding.verdict, Verdict::fail)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
    EXPECT_NE(row.finding.detail.find("["), std::string::npos) << "no bytes: " << row.finding.detail;
  }
}

INSTANTIATE_TEST_SUITE_P(front_ends, JudgementOf, testing::ValuesIn(cases()),
                         [](const auto& one) { return std::string(one.param.name); });

// What a usual front-end says.
TEST(Judgement, finds_nothing_wrong_in_a_right_conversation) {
  Speaker s;
  s.greet(version_1, mq | slots | capability(VHOST_USER_PROTOCOL_F_CONFIG) |
                         capability(VHOST_USER_PROTOCOL_F_BACKEND_REQ));
  s.say(id<GetQueueNum>).hear(id<GetQueueNum>, 2).say(id<SetFrontEnd>, {}, Speaker::socket());
  s.say(id<GetConfig>, payload(uint32_t{0}, uint32_t{4}, uint32_t{0}, uint32_t{0}));
  s.say(id<AddMemReg>, Speaker::one_region({guest, front_end}), Speaker::files(1));
  s.say(id<SetVringNum>, payload(uint32_t{0}, uint32_t{64}))
      .say(id<SetVringBase>, payload(uint32_t{0}, uint32_t{0}));
  s.say(id<SetVringAddr>, Speaker::address(0)).say(id<SetVringKick>, payload(uint64_t{0}), Speaker::event());
  s.say(id<SetVringCall>, payload(uint64_t{0x100}))
      .say(id<SetVringEnable>, payload(uint32_t{0}, uint32_t{1}));
  s.say(id<GetVringBase>, payload(uint32_t{0}, uint32_t{0}));
  for (const check::Row& row : check::judge_front_end(s.conversation())) {
    EXPECT_NE(row.finding.verdict, Verdict::fail)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
  }
}

void expect_no_failure(const Speaker& speaker) {
  for (const check::Row& row : check::judge_front_end(speaker.conversation())) {
    EXPECT_NE(row.finding.verdict, Verdict::fail)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
  }
}

// "Present in GET_PROTOCOL_FEATURES": it need not be set.
TEST(Judgement, allows_what_was_offered_where_the_text_asks_for_no_more) {
  const uint64_t offered = mq | capability(VHOST_USER_PROTOCOL_F_RARP) |
                           capability(VHOST_USER_PROTOCOL_F_MTU) |
                           capability(VHOST_USER_PROTOCOL_F_RESET_DEVICE);
  Speaker s;
  s.say(id<GetFeatures>).hear(id<GetFeatures>, version_1 | bit_30);
  s.say(id<GetProtocolFeatures>).hear(id<GetProtocolFeatures>, offered);
  s.say(id<SetProtocolFeatures>, payload(mq)).say(id<SetOwner>);
  s.say(id<SetFeatures>, payload(version_1 | bit_30));
  s.say(id<SendRarp>, payload(uint64_t{1})).say(id<NetSetMtu>, payload(uint64_t{1500})).say(id<ResetDevice>);
  expect_no_failure(s);
}

TEST(Judgement, allows_another_ring_in_the_place_of_one_that_was_stopped) {
  Speaker s;
  s.greet(version_1, mq | capability(VHOST_USER_PROTOCOL_F_STATUS)).share();
  s.say(id<SetVringAddr>, Speaker::address(0)).say(id<GetVringBase>, payload(uint32_t{0}, uint32_t{0}));
  s.say(id<SetVringAddr>, Speaker::address(1)).say(id<SetStatus>, payload(uint64_t{0}));
  s.say(id<SetVringAddr>, Speaker::address(0));
  expect_no_failure(s);
}

TEST(Judgement, has_a_wrong_front_end_for_each_requirement_that_is_judged) {
  std::set<unsigned> caught;
  for (const Case& one : cases()) caught.insert(one.numbers.begin(), one.numbers.end());
  caught.insert({25, 49});  // by how it takes what it is told: tests/check
  for (const check::Requirement& one : check::requirements()) {
    EXPECT_TRUE(one.front_end.judge == nullptr || caught.contains(one.number))
        << "N" << one.number << " " << one.sentence;
  }
}

}  // namespace
}  // namespace ringway::tools
