#include "ringway/tools/trace_judge.h"

#include <gmock/gmock.h>
#include <linux/virtio_config.h>

#include "ringway/device/port/virtio_net.h"
#include "ringway/tools/trace_format.h"
#include "ringway/user/peer_test.h"

namespace ringway::tools {
namespace {

using namespace user::testing;
using namespace vhost;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using user::Frame;

constexpr uint64_t version_1 = bit(VIRTIO_F_VERSION_1);
constexpr uint64_t bit_30 = bit(VHOST_USER_F_PROTOCOL_FEATURES);
constexpr uint64_t usual = bit(VHOST_USER_PROTOCOL_F_MQ) | bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                           bit(VHOST_USER_PROTOCOL_F_CONFIG) | bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ);
constexpr uint32_t ask = user::version | user::need_reply_flag;
constexpr uint32_t answer = user::version | user::reply_flag;

class Sockets final : public user::BackChannel {
  Result<std::shared_ptr<FrontEnd>> reach(UniqueFd) override { return refused(""); }
  Result<UniqueFd> serve(std::shared_ptr<FrontEnd>) override { return some_fd(); }
};

// A conversation that is made up, and what is said of it.
class JudgeTest : public ::testing::Test {
 protected:
  std::vector<std::string> see(const Frame& frame, Side from, Channel channel = Channel::main,
                               std::chrono::milliseconds later = 1ms) {
    SeenMessage message;
    message.number = ++number;
    message.from = from;
    message.channel = channel;
    message.bytes = bytes_of(frame);
    message.size = message.bytes.size();
    message.complete = frame.payload.size() == frame.header.size;
    message.fds_lost = fds_lost;
    now += later;
    message.began = message.ended = now;
    for (const UniqueFd& fd : frame.fds) message.fds.push_back({.what = describe_fd(fd.get())});
    const auto answered = talk.follow(message);
    return texts(judge.see(message, answered));
  }
  std::vector<std::string> request(const Frame& frame) { return see(frame, Side::front_end); }
  template <class T>
  std::vector<std::string> request(T value, uint32_t flags = user::version) {
    Sockets sockets;
    auto frame = user::encode<DeviceRequest>(DeviceRequest(std::move(value)), &sockets);
    EXPECT_TRUE(frame);
    frame->header.flags = flags;
    return request(*frame);
  }
  std::vector<std::string> reply(const Frame& frame, std::chrono::milliseconds later = 1ms) {
    return see(frame, Side::back_end, Channel::main, later);
  }
  std::vector<std::string> end(std::optional<Side> first, std::chrono::milliseconds later = 1ms) {
    return texts(judge.end(first, now + later));
  }
  // Said without a doubt.
  void quietly(const std::vector<std::string>& said) { EXPECT_THAT(said, IsEmpty()); }
  void agree(uint64_t features = version_1 | bit_30, uint64_t protocol = usual) {
    quietly(request(GetFeatures{}));
    quietly(reply(u64_frame(1, answer, features)));
    if ((features & bit_30) != 0) {
      quietly(request(GetProtocolFeatures{}));
      quietly(reply(u64_frame(15, answer, protocol)));
      quietly(request(SetProtocolFeatures{{protocol}}));
    }
    quietly(request(SetFeatures{features}));
  }
  void negotiate(uint64_t features = version_1 | bit_30, uint64_t protocol = usual) {
    agree(features, protocol);
    quietly(request(SetOwner{}));
  }
  UniqueFd memory_of(uint64_t size) {
    UniqueFd fd(::memfd_create("memory", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
    return fd;
  }
  SetMemTable table(uint64_t size = 1 << 20) {
    SetMemTable all;
    all.regions.push_back(
        {.layout = {.guest = {0}, .size = size, .front_end = {0x7f0000000000}, .file_offset = 0},
         .fd = memory_of(size)});
    return all;
  }
  // Without SET_VRING_BASE, which may be left out.
  void describe_ring(uint64_t at = 0x7f0000000000, uint32_t ring = 0) {
    quietly(request(SetVringNum{ring, 128}));
    quietly(request(SetVringAddr{ring, 0, at, at + 0x2000, at + 0x1000, 0}));
  }
  void start_ring(uint64_t at = 0x7f0000000000, uint32_t ring = 0) {
    describe_ring(at, ring);
    quietly(request(SetVringKick{ring, some_fd()}));
  }
  static std::vector<std::string> texts(const std::vector<Finding>& findings) {
    std::vector<std::string> all;
    for (const Finding& finding : findings)
      all.push_back((finding.level == Finding::Level::mistake ? "mistake: " : "odd: ") + finding.text);
    return all;
  }
  bool fds_lost = false;  // of what is seen now
  uint64_t number = 0;
  Judge::Clock::time_point now = Judge::Clock::now();
  Talk talk{nullptr};
  Judge judge{talk, 5s};
};

// ---- silence

TEST_F(JudgeTest, what_follows_the_rules_is_passed_over_in_silence) {
  negotiate();
  quietly(request(GetQueueNum{}));
  quietly(reply(u64_frame(17, answer, 2)));
  quietly(request(SetFrontEnd{std::make_shared<RecordingFrontEnd>()}, ask));
  quietly(reply(u64_frame(21, answer, 0)));
  quietly(request(table(), ask));
  quietly(reply(u64_frame(5, answer, 0)));
  start_ring();
  quietly(request(SetVringCall{0, some_fd()}));
  quietly(request(SetVringEnable{0, 1}));
  quietly(see(empty_frame(2), Side::back_end, Channel::back_end));
  quietly(request(GetVringBase{0}));
  quietly(reply(state_frame(11, answer, 0, 77)));
  EXPECT_THAT(judge.late(now + 1h), IsEmpty());
  EXPECT_THAT(end(Side::back_end), IsEmpty());
}

TEST_F(JudgeTest, what_other_front_ends_are_known_to_do_is_no_mistake) {
  // Reconnected: what is offered is remembered from before. Network rings are enabled before features are
  // set.
  quietly(request(SetProtocolFeatures{{usual}}));
  quietly(request(SetVringEnable{0, 1}));
  quietly(request(SetFeatures{version_1 | bit_30}));
  quietly(request(SetOwner{}));
  // user-mode Linux asks for the acknowledgement of what negotiates acknowledgements.
  quietly(request(SetProtocolFeatures{{usual}}, ask));
  quietly(reply(u64_frame(16, answer, 0)));
  // The log is switched under a running ring, and a ring is described after it was kicked.
  quietly(request(table()));
  quietly(request(SetVringKick{1, some_fd()}));
  quietly(request(SetVringNum{1, 64}));
  quietly(request(SetVringAddr{1, 0, 0x7f0000000000, 0x7f0000002000, 0x7f0000001000, 0}));
  quietly(request(SetVringAddr{1, 1, 0x7f0000000000, 0x7f0000002000, 0x7f0000001000, 0x1000}));
  // Unknown messages may be newer than this program.
  quietly(request(u64_frame(77, ask, 1)));
}

TEST_F(JudgeTest, an_answer_that_was_not_due_is_none_to_wonder_at) {
  quietly(request(SetOwner{}, ask));
  quietly(reply(u64_frame(3, answer, 0)));
}

// ---- order and negotiation

TEST_F(JudgeTest, a_message_that_was_not_negotiated) {
  negotiate(version_1 | bit_30, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  EXPECT_THAT(request(GetConfig{.size = 8}), ElementsAre("odd: was not negotiated"));
  EXPECT_THAT(request(SetFrontEnd{std::make_shared<RecordingFrontEnd>()}),
              ElementsAre("mistake: was not negotiated"));
  EXPECT_THAT(see(empty_frame(2), Side::back_end, Channel::back_end),
              ElementsAre("mistake: was not negotiated"));
}

TEST_F(JudgeTest, features_that_were_not_offered_are_one_mistake_and_not_many) {
  quietly(request(GetFeatures{}));
  quietly(reply(u64_frame(1, answer, version_1)));
  EXPECT_THAT(request(SetFeatures{version_1 | bit(34)}),
              ElementsAre(AllOf(HasSubstr("mistake"), HasSubstr("not offered"))));
  quietly(request(SetVringNum{0, 100}));
}

TEST_F(JudgeTest, protocol_features_of_a_back_end_that_has_none) {
  quietly(request(GetFeatures{}));
  quietly(reply(u64_frame(1, answer, version_1)));
  EXPECT_THAT(request(GetProtocolFeatures{}), ElementsAre(HasSubstr("bit 30")));
}

TEST_F(JudgeTest, in_band_notifications_alone) {
  EXPECT_THAT(request(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)}}),
              ElementsAre(HasSubstr("without BACKEND_REQ and REPLY_ACK")));
}

TEST_F(JudgeTest, sizes_addresses_and_indices_that_cannot_be) {
  negotiate();
  EXPECT_THAT(request(SetVringNum{0, 100}),
              ElementsAre("mistake: ring size is not a power of two (100, 0x64)"));
  EXPECT_THAT(request(SetVringNum{256, 128}), ElementsAre(HasSubstr("no such ring")));
  EXPECT_THAT(request(SetVringAddr{0, 0, 0x1001, 0x2000, 0x3000, 0}), ElementsAre(HasSubstr("not aligned")));
}

TEST_F(JudgeTest, a_started_ring_that_is_changed) {
  negotiate();
  quietly(request(table()));
  start_ring();
  EXPECT_THAT(request(SetVringNum{0, 256}), ElementsAre(HasSubstr("started ring")));
}

TEST_F(JudgeTest, a_ring_that_is_stopped_twice) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringEnable{0, 1}));
  start_ring();
  quietly(request(GetVringBase{0}));
  const uint64_t first = number;
  quietly(reply(state_frame(11, answer, 0, 0)));
  EXPECT_THAT(request(GetVringBase{0}),
              ElementsAre(fmt::format("odd: ring 0 is stopped again: nothing has started it since message {}",
                                      first)));
  quietly(reply(state_frame(11, answer, 0, 0)));
  quietly(request(SetVringKick{0, some_fd()}));
  quietly(request(GetVringBase{0}));
}

// ---- what does not come

TEST_F(JudgeTest, a_session_that_never_began) {
  agree();
  quietly(request(table()));
  const uint64_t shared = number;
  quietly(request(GetFeatures{}));
  quietly(reply(u64_frame(1, answer, version_1)));
  const auto said = judge.end(Side::front_end, now);
  EXPECT_THAT(texts(said), ElementsAre("odd: SET_OWNER has not come: it begins a session"));
  EXPECT_EQ(said.at(0).number, shared);
  EXPECT_STREQ(said.at(0).name, "SET_MEM_TABLE");
}

TEST_F(JudgeTest, a_ring_of_a_session_that_has_not_begun_is_told_once) {
  agree();
  quietly(request(table()));
  quietly(request(SetVringEnable{0, 1}));
  describe_ring();
  EXPECT_THAT(request(SetVringKick{0, some_fd()}), ElementsAre(HasSubstr("SET_OWNER has not come")));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, an_owner_that_comes_late_or_is_not_needed_yet) {
  agree();
  EXPECT_THAT(end(Side::front_end), IsEmpty()) << "it has only looked";
  quietly(request(table()));
  quietly(request(SetOwner{}));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_ring_that_was_kicked_before_anything) {
  negotiate();
  quietly(request(SetVringKick{0, some_fd()}));
  const auto said = judge.end(Side::front_end, now);
  EXPECT_THAT(
      texts(said),
      ElementsAre("odd: ring 0 was kicked and could not start: it has no size, no addresses, no memory"));
  EXPECT_EQ(said.at(0).number, number);
  EXPECT_STREQ(said.at(0).name, "SET_VRING_KICK");
}

TEST_F(JudgeTest, a_ring_without_addresses) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringNum{0, 128}));
  quietly(request(SetVringKick{0, {}}));
  EXPECT_THAT(request(GetVringBase{0}),
              ElementsAre("odd: ring 0 was kicked and could not start: it has no addresses"));
  quietly(reply(state_frame(11, answer, 0, 0)));
  EXPECT_THAT(end(Side::front_end), IsEmpty()) << "it is said once";
}

TEST_F(JudgeTest, a_ring_without_a_size) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringAddr{0, 0, 0x7f0000000000, 0x7f0000002000, 0x7f0000001000, 0}));
  quietly(request(SetVringKick{0, some_fd()}));
  EXPECT_THAT(end(std::nullopt), ElementsAre(AllOf(HasSubstr("it has no size"), Not(HasSubstr("address")))));
}

TEST_F(JudgeTest, a_ring_without_memory_is_told_once) {
  negotiate();
  quietly(request(SetVringEnable{0, 1}));
  describe_ring();
  EXPECT_THAT(request(SetVringKick{0, some_fd()}),
              ElementsAre("odd: ring 0 starts, and no memory has been shared"));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_ring_behind_an_iommu_without_memory) {
  negotiate(version_1 | bit_30 | bit(VIRTIO_F_ACCESS_PLATFORM));
  quietly(request(SetVringEnable{0, 1}));
  start_ring(0x1000);
  EXPECT_THAT(end(Side::front_end), ElementsAre(HasSubstr("it has no memory")));
}

TEST_F(JudgeTest, a_ring_that_is_described_after_its_kick) {
  negotiate();
  quietly(request(SetVringKick{0, some_fd()}));
  quietly(request(SetVringEnable{0, 1}));
  quietly(request(table()));
  describe_ring();
  quietly(request(GetVringBase{0}));
  quietly(reply(state_frame(11, answer, 0, 0)));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_ring_that_starts_again_by_its_kick_alone) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringEnable{0, 1}));
  for (int i = 0; i < 2; ++i) {
    i == 0 ? start_ring() : quietly(request(SetVringKick{0, some_fd()}));
    quietly(request(GetVringBase{0}));
    quietly(reply(state_frame(11, answer, 0, 0)));
  }
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, what_a_reset_leaves_of_a_ring_is_not_known) {
  negotiate();
  quietly(request(table()));
  start_ring();
  quietly(request(ResetOwner{}));
  quietly(request(SetVringKick{0, some_fd()}));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_ring_whose_describing_was_lost) {
  negotiate();
  quietly(request(SetVringNum{0, 128}));
  fds_lost = true;
  EXPECT_THAT(request(SetVringCall{0, some_fd()}), ElementsAre(HasSubstr("were lost")));
  fds_lost = false;
  quietly(request(SetVringKick{0, some_fd()}));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_ring_that_is_never_enabled) {
  negotiate();
  quietly(request(table()));
  start_ring();
  const auto said = judge.end(Side::front_end, now);
  EXPECT_THAT(
      texts(said),
      ElementsAre("odd: ring 0 was started and never enabled: with bit 30 it waits for SET_VRING_ENABLE"));
  EXPECT_EQ(said.at(0).number, number);
}

TEST_F(JudgeTest, a_ring_that_there_was_no_time_to_enable) {
  negotiate();
  quietly(request(table()));
  start_ring();
  EXPECT_THAT(end(Side::back_end), ElementsAre(HasSubstr("the last message that it was sent")));
}

TEST_F(JudgeTest, a_ring_that_is_stopped_and_was_never_enabled) {
  negotiate();
  quietly(request(table()));
  start_ring();
  EXPECT_THAT(request(GetVringBase{0}), ElementsAre(HasSubstr("never enabled")));
  quietly(reply(state_frame(11, answer, 0, 0)));
  EXPECT_THAT(end(Side::front_end), IsEmpty()) << "it is said once";
}

TEST_F(JudgeTest, an_enabling_that_was_refused) {
  negotiate();
  quietly(request(table()));
  start_ring();
  quietly(request(SetVringEnable{0, 1}, ask));
  EXPECT_THAT(reply(u64_frame(18, answer, 1)), ElementsAre(HasSubstr("refused it")));
  EXPECT_THAT(end(Side::front_end), ElementsAre(HasSubstr("never enabled")));
}

TEST_F(JudgeTest, a_ring_that_was_enabled_before_it_started_or_is_kept_disabled) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringEnable{0, 1}));
  start_ring();
  quietly(request(SetVringEnable{1, 0}));
  start_ring(0x7f0000000000, 1);
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_ring_that_needs_no_enabling) {
  negotiate(version_1);
  quietly(request(table()));
  start_ring();
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, queue_pairs_that_a_network_driver_does_not_use) {
  negotiate(version_1 | bit_30 | vhost::bit(port::VIRTIO_NET_F_MQ));
  quietly(request(table()));
  for (uint32_t ring = 0; ring < 4; ++ring) {
    if (ring < 2) quietly(request(SetVringEnable{ring, 1}));
    start_ring(0x7f0000000000, ring);
  }
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, half_of_a_queue_pair_that_is_never_enabled) {
  negotiate(version_1 | bit_30 | vhost::bit(port::VIRTIO_NET_F_MQ));
  quietly(request(table()));
  for (uint32_t ring = 0; ring < 4; ++ring) {
    if (ring == 0 || ring == 3) quietly(request(SetVringEnable{ring, 1}));
    start_ring(0x7f0000000000, ring);
  }
  EXPECT_THAT(end(Side::front_end), ElementsAre(HasSubstr("ring 1 was started and never"),
                                                HasSubstr("ring 2 was started and never")));
}

// ---- memory and file descriptors

TEST_F(JudgeTest, a_ring_outside_of_the_memory_that_is_shared) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringNum{0, 128}));
  quietly(request(SetVringAddr{0, 0, 0x7f0000000000, 0x7f0000100000, 0x7f0000001000, 0}));
  EXPECT_THAT(
      request(SetVringKick{0, some_fd()}),
      ElementsAre(
          "mistake: ring 0 starts with its device area at 0x7f0000100000, which is not in the memory that is "
          "shared"));
}

TEST_F(JudgeTest, addresses_behind_an_iommu_are_not_looked_for_in_memory) {
  negotiate(version_1 | bit_30 | bit(VIRTIO_F_ACCESS_PLATFORM));
  quietly(request(table()));
  start_ring(0x1000);
}

TEST_F(JudgeTest, what_is_not_known_of_memory_is_taken_for_shared) {
  negotiate();
  fds_lost = true;
  EXPECT_THAT(request(table()), ElementsAre(HasSubstr("were lost")));
  fds_lost = false;
  start_ring(0x1000);
  quietly(request(table()));
  quietly(request(SetVringNum{1, 128}));
  quietly(request(SetVringAddr{1, 0, 0x1000, 0x3000, 0x2000, 0}));
  EXPECT_THAT(request(SetVringKick{1, some_fd()}), ::testing::SizeIs(3)) << "now it is known";
}

TEST_F(JudgeTest, memory_of_xen_is_not_looked_into) {
  negotiate(version_1 | bit_30, usual | bit(VHOST_USER_PROTOCOL_F_XEN_MMAP));
  quietly(request(table()));
  start_ring(0x1000);
}

TEST_F(JudgeTest, a_kick_whose_fd_was_lost_starts_the_ring_all_the_same) {
  negotiate();
  quietly(request(table()));
  quietly(request(SetVringEnable{0, 1}));
  start_ring();
  quietly(request(GetVringBase{0}));
  quietly(reply(state_frame(11, answer, 0, 77)));
  fds_lost = true;
  EXPECT_THAT(request(SetVringKick{0, some_fd()}), ElementsAre(HasSubstr("were lost")));
  fds_lost = false;
  quietly(request(GetVringBase{0}));
}

TEST_F(JudgeTest, memory_that_is_not_in_its_file) {
  negotiate();
  SetMemTable all = table();
  all.regions[0].fd = memory_of(4096);
  EXPECT_THAT(request(std::move(all)),
              ElementsAre("odd: region 0 ends at byte 1048576 of its file, which has 4096"));
  SetMemTable no_memory = table();
  no_memory.regions[0].fd = some_fd();
  EXPECT_THAT(request(std::move(no_memory)),
              ElementsAre("mistake: region 0 comes with a eventfd, which is no memory"));
}

TEST_F(JudgeTest, a_kick_that_cannot_be_heard) {
  negotiate();
  EXPECT_THAT(request(SetVringKick{0, memory_of(8)}), ElementsAre(HasSubstr("neither eventfd nor pipe")));
}

// ---- form

TEST_F(JudgeTest, messages_of_the_wrong_form) {
  EXPECT_THAT(request(state_frame(2, user::version, 1, 1)), IsEmpty());
  EXPECT_THAT(request(u64_frame(3, user::version, 1)), ElementsAre(HasSubstr("payload must be empty")));
  EXPECT_THAT(request(u64_frame(1, 0, 1)), ::testing::Contains(HasSubstr("version 0 instead of 1")));
  EXPECT_THAT(request(empty_frame(3, answer)), ElementsAre("mistake: a request with the flag of replies"));
  Frame fd_too_much = empty_frame(3);
  fd_too_much.fds = some_fds(1);
  EXPECT_THAT(request(fd_too_much), ElementsAre(HasSubstr("file descriptor")));
  Frame cut = u64_frame(2, user::version, 0);
  cut.payload.resize(3);
  EXPECT_THAT(request(cut), ElementsAre("mistake: only 15 of its 20 bytes have come"));
}

// ---- replies

TEST_F(JudgeTest, replies_that_cannot_be) {
  EXPECT_THAT(reply(u64_frame(1, answer, 0)), ElementsAre("mistake: a reply to nothing that was asked"));
  quietly(request(GetFeatures{}));
  EXPECT_THAT(reply(empty_frame(1, answer)), ElementsAre(HasSubstr("8 bytes")));
  quietly(request(GetFeatures{}));
  EXPECT_THAT(reply(u64_frame(1, user::version, 0)),
              ElementsAre("mistake: a reply without the flag of replies"));
  quietly(request(GetVringBase{1}));
  EXPECT_THAT(reply(state_frame(11, answer, 2, 0)), ElementsAre(HasSubstr("another ring")));
  quietly(request(GetFeatures{}));
  EXPECT_THAT(reply(u64_frame(1, answer | user::need_reply_flag, 0)), ElementsAre(HasSubstr("QEMU refuses")));
}

TEST_F(JudgeTest, a_refusal_is_told_and_what_was_refused_has_not_happened) {
  negotiate();
  quietly(request(SetVringNum{0, 128}, ask));
  quietly(reply(u64_frame(8, answer, 0)));
  quietly(request(SetVringAddr{0, 0, 0x1000, 0x2000, 0x3000, 0}, ask));
  EXPECT_THAT(reply(u64_frame(9, answer, 1)), ElementsAre("odd: the peer refused it (1, 0x1)"));
  quietly(request(SetVringKick{0, some_fd()}));
  quietly(request(SetVringNum{0, 256}));  // it has no addresses, so it is not started
}

TEST_F(JudgeTest, a_reply_that_is_late_is_told_once_and_when_it_comes) {
  quietly(request(GetFeatures{}));
  EXPECT_THAT(judge.late(now + 4s), IsEmpty());
  EXPECT_EQ(judge.next_late(), now + 5s);
  EXPECT_THAT(texts(judge.late(now + 5s)), ElementsAre("odd: no reply for 5.0 s"));
  EXPECT_THAT(judge.late(now + 9s), IsEmpty());
  EXPECT_THAT(reply(u64_frame(1, answer, 0), 7s), ElementsAre("odd: answered after 7.0 s"));
}

TEST_F(JudgeTest, a_back_end_that_leaves_instead_of_answering) {
  quietly(request(GetFeatures{}));
  EXPECT_THAT(end(Side::back_end),
              ElementsAre("odd: the back-end has closed the connection instead of answering"));
  EXPECT_THAT(end(Side::front_end), IsEmpty());
}

TEST_F(JudgeTest, a_back_end_that_leaves_right_after_a_message) {
  quietly(request(GetFeatures{}));
  quietly(reply(u64_frame(1, answer, version_1)));
  quietly(request(SetOwner{}));
  const auto said = judge.end(Side::back_end, now + 100ms);
  EXPECT_THAT(
      texts(said),
      ElementsAre("odd: the back-end has closed the connection: this is the last message that it was sent"));
  EXPECT_EQ(said.at(0).number, number);
  EXPECT_STREQ(said.at(0).name, "SET_OWNER");
}

TEST_F(JudgeTest, a_back_end_that_leaves_for_another_reason) {
  quietly(request(SetOwner{}));
  EXPECT_THAT(end(Side::back_end, 1s), IsEmpty()) << "it may have been stopped";
  EXPECT_THAT(end(Side::front_end), IsEmpty());
  EXPECT_THAT(end(std::nullopt), IsEmpty());
  quietly(request(GetFeatures{}));
  quietly(reply(u64_frame(1, answer, version_1)));
  EXPECT_THAT(end(Side::back_end), IsEmpty()) << "it has answered";
}

// ---- what is shown

TEST(TraceFormat, a_message_is_a_line_of_names_and_values) {
  SeenMessage message;
  message.session = 3;
  message.number = 7;
  message.bytes = bytes_of(u64_frame(2, ask, version_1 | bit(29)));
  message.size = message.bytes.size();
  message.complete = true;
  EXPECT_THAT(message_text(message, nullptr),
              HasSubstr(" 3 -> 7 SET_FEATURES need_reply: features 0x120000000 (EVENT_IDX VERSION_1)\n"));
  const auto json = message_json(message, nullptr);
  EXPECT_EQ(json["name"], "SET_FEATURES");
  EXPECT_EQ(json["fields"]["features"]["bits"], "0x120000000");
  EXPECT_EQ(json["fields"]["features"]["names"], (nlohmann::json{"EVENT_IDX", "VERSION_1"}));
  EXPECT_EQ(json["need_reply"], true);
}

TEST(TraceFormat, anything_can_be_shown) {
  for (uint32_t id = 0; id < 60; ++id) {
    for (size_t size = 0; size < 100; size += 3) {
      for (const Channel channel : {Channel::main, Channel::back_end}) {
        for (const Side side : {Side::front_end, Side::back_end}) {
          SeenMessage message;
          message.channel = channel;
          message.from = side;
          message.bytes = bytes_of({.header = {.request = id, .flags = ~0U, .size = 3},
                                    .payload = Bytes(size, std::byte{0xff}),
                                    .fds = {}});
          message.bytes.resize(size);
          message.fds.push_back(
              {.what = {.kind = FdKind::memfd, .name = "\xff\n\x1b[2J", .id = 1, .bytes = 5}});
          const std::string text = message_text(message, nullptr);
          EXPECT_EQ(text.find('\x1b'), std::string::npos);
          EXPECT_FALSE(json_line(message_json(message, nullptr)).empty());
        }
      }
    }
  }
}

}  // namespace
}  // namespace ringway::tools
