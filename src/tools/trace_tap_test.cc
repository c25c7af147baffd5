#include "ringway/tools/trace_tap.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <random>

#include "ringway/user/peer_test.h"

namespace ringway::tools {
namespace {

using namespace user::testing;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using user::Frame;

class Notes final : public TapObserver {
 public:
  void began(uint32_t) override { note(began_); }
  void turned_away(const std::string& sentence) override {
    const std::scoped_lock lock(mutex_);
    away_ = sentence;
    changed_.notify_all();
  }
  void saw(SeenMessage message) override {
    const std::scoped_lock lock(mutex_);
    seen_.push_back(std::move(message));
    changed_.notify_all();
  }
  void ended(uint32_t, std::optional<Side> first) override {
    first_ = first;
    note(ended_);
  }
  std::optional<Clock::time_point> tick(Clock::time_point) override { return {}; }
  bool is_done() override { return false; }

  bool wait_ended(int times) {
    return wait([&] { return ended_ >= times; });
  }
  std::string wait_away() {
    wait([&] { return !away_.empty(); });
    return away_;
  }
  // All messages, as soon as there are so many.
  std::vector<SeenMessage> wait_seen(size_t count) {
    EXPECT_TRUE(wait([&] { return seen_.size() >= count; })) << seen_.size();
    const std::scoped_lock lock(mutex_);
    return seen_;
  }
  std::optional<Side> first_;

 private:
  void note(int& counter) {
    const std::scoped_lock lock(mutex_);
    ++counter;
    changed_.notify_all();
  }
  bool wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 3s, condition);
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  int began_ = 0;
  int ended_ = 0;
  std::string away_;
  std::vector<SeenMessage> seen_;
};

// A front-end and a back-end that are raw peers, and the tap between them.
class TapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ringway-tap-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    back_end_ = *user::listen_at(folder_ + "/back-end");
    listening_ = *user::listen_at(folder_ + "/tap");
    stop_ = *user::Stop::make();
    thread_ = std::thread(
        [this] { Tap(listening_.get(), folder_ + "/back-end", {}, 200ms, notes).run(stop_->fd()); });
    connect(front_end, back_end);
  }
  void TearDown() override {
    stop_->request();
    thread_.join();
    std::filesystem::remove_all(folder_);
  }
  void connect(Peer& front, Peer& back) {
    front = Peer(*user::connect_to(folder_ + "/tap"));
    pollfd entry{.fd = back_end_.get(), .events = POLLIN};
    ASSERT_EQ(::poll(&entry, 1, 3000), 1);
    back = Peer(UniqueFd(::accept4(back_end_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  void stop_back_end() { back_end_.reset(); }
  [[nodiscard]] std::string tap_path() const { return folder_ + "/tap"; }
  // `count` bytes, or as many as come.
  static Bytes take(const Peer& peer, size_t count) {
    Bytes bytes(count);
    size_t done = 0;
    while (done < count && peer.readable(2s)) {
      const ssize_t got = ::recv(peer.fd(), bytes.data() + done, count - done, MSG_DONTWAIT);
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    bytes.resize(done);
    return bytes;
  }
  static ino_t inode(int fd) {
    struct stat status{};
    EXPECT_EQ(::fstat(fd, &status), 0);
    return status.st_ino;
  }

  Notes notes;
  Peer front_end;
  Peer back_end;

 private:
  std::string folder_;
  UniqueFd back_end_;
  UniqueFd listening_;
  std::shared_ptr<user::Stop> stop_;
  std::thread thread_;
};

class Sockets final : public user::BackChannel {
  Result<std::shared_ptr<vhost::FrontEnd>> reach(UniqueFd) override { return refused(""); }
  Result<UniqueFd> serve(std::shared_ptr<vhost::FrontEnd>) override { return some_fd(); }
};

TEST_F(TapTest, every_message_arrives_as_it_was_sent_and_is_told) {
  Sockets sockets;
  const size_t count = std::variant_size_v<vhost::DeviceRequest>;
  for (uint32_t id = 1; id <= count; ++id) {
    const auto frame = user::encode<vhost::DeviceRequest>(some_device_request(id), &sockets);
    ASSERT_TRUE(frame);
    front_end.send(*frame);
    const Frame arrived = back_end.receive();
    EXPECT_EQ(bytes_of(arrived), bytes_of(*frame)) << id;
    EXPECT_EQ(arrived.fds.size(), frame->fds.size()) << id;
  }
  const auto seen = notes.wait_seen(count);
  ASSERT_EQ(seen.size(), count);
  for (uint32_t id = 1; id <= count; ++id) {
    EXPECT_STREQ(seen[id - 1].name(), vhost::catalogue<vhost::DeviceRequest>[id - 1].name);
    EXPECT_TRUE(seen[id - 1].complete);
    EXPECT_EQ(seen[id - 1].number, id);
  }
}

TEST_F(TapTest, a_file_descriptor_is_the_same_open_file) {
  UniqueFd memory(::memfd_create("memory", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memory.get(), 12345), 0);
  Frame frame = empty_frame(7);
  frame.fds.push_back(*memory.duplicate());
  front_end.send(frame);
  const Frame arrived = back_end.receive();
  ASSERT_EQ(arrived.fds.size(), 1U);
  EXPECT_EQ(inode(arrived.fds[0].get()), inode(memory.get()));
  ASSERT_EQ(::lseek(memory.get(), 77, SEEK_SET), 77);
  EXPECT_EQ(::lseek(arrived.fds[0].get(), 0, SEEK_CUR), 77);
  const auto seen = notes.wait_seen(1);
  ASSERT_EQ(seen[0].fds.size(), 1U);
  EXPECT_EQ(seen[0].fds[0].what.kind, FdKind::memfd);
  EXPECT_EQ(seen[0].fds[0].what.name, "memory");
  EXPECT_EQ(seen[0].fds[0].what.bytes, 12345U);
}

TEST_F(TapTest, what_is_malformed_passes_all_the_same) {
  Frame odd = u64_frame(999, 0xfffffff2, 1);  // unknown, undefined flags, version 2
  front_end.send(odd);
  EXPECT_EQ(bytes_of(back_end.receive()), bytes_of(odd));
  Frame many = empty_frame(1);
  many.fds = some_fds(200);
  front_end.send(many);
  EXPECT_EQ(back_end.receive().fds.size(), 200U);
  Frame large{
      .header = {.request = 5, .size = 100'000}, .payload = Bytes(100'000, std::byte{0x5a}), .fds = {}};
  const Bytes bytes = bytes_of(large);
  front_end.send(bytes);
  EXPECT_EQ(take(back_end, bytes.size()), bytes);
  const auto seen = notes.wait_seen(3);
  EXPECT_EQ(seen[1].fds.size(), 200U);
  EXPECT_FALSE(seen[2].complete);
  EXPECT_EQ(seen[2].header().size, 100'000U);
  // And it goes on.
  front_end.send(empty_frame(3));
  EXPECT_EQ(back_end.receive().header.request, 3U);
  EXPECT_EQ(notes.wait_seen(4)[3].header().request, 3U);
}

TEST_F(TapTest, file_descriptors_stay_with_the_bytes_that_they_came_with) {
  Frame frame = u64_frame(12, user::version, 0);
  const Bytes bytes = bytes_of(frame);
  const auto one = some_fds(1);
  front_end.send(std::span(bytes).first(12));
  EXPECT_EQ(take(back_end, 12).size(), 12U);
  front_end.send(std::span(bytes).subspan(12), one);
  alignas(cmsghdr) std::array<std::byte, 256> control{};
  Bytes payload(8);
  iovec whole{.iov_base = payload.data(), .iov_len = payload.size()};
  msghdr message{
      .msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  ASSERT_TRUE(back_end.readable(2s));
  EXPECT_EQ(::recvmsg(back_end.fd(), &message, 0), 8);
  ASSERT_NE(CMSG_FIRSTHDR(&message), nullptr);
  int arrived = -1;
  std::memcpy(&arrived, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof arrived);
  ::close(arrived);
  EXPECT_EQ(notes.wait_seen(1)[0].fds.at(0).offset, 12U);
}

TEST_F(TapTest, a_message_that_comes_byte_by_byte_arrives_whole) {
  Frame frame = u64_frame(12, user::version, 3);
  frame.fds = some_fds(1);
  const Bytes bytes = bytes_of(frame);
  front_end.send(std::span(bytes).first(1), frame.fds);
  for (size_t i = 1; i < bytes.size(); ++i) {
    std::this_thread::sleep_for(2ms);
    front_end.send(std::span(bytes).subspan(i, 1));
  }
  const Frame arrived = back_end.receive();
  EXPECT_EQ(bytes_of(arrived), bytes);
  EXPECT_EQ(arrived.fds.size(), 1U);
  EXPECT_EQ(notes.wait_seen(1).size(), 1U);
}

TEST_F(TapTest, half_a_message_arrives_at_once_and_is_told_after_a_while) {
  const Bytes bytes = bytes_of(u64_frame(2, user::version, 5));
  front_end.send(std::span(bytes).first(15));
  EXPECT_EQ(take(back_end, 15).size(), 15U);
  const auto seen = notes.wait_seen(1);
  EXPECT_FALSE(seen[0].complete);
  EXPECT_EQ(seen[0].size, 15U);
  front_end.send(std::span(bytes).subspan(15));
  EXPECT_EQ(take(back_end, 5).size(), 5U);
  front_end.send(empty_frame(3));
  EXPECT_EQ(notes.wait_seen(2)[1].header().request, 3U);
}

TEST_F(TapTest, random_bytes_pass_in_both_directions_at_once) {
  std::mt19937 random(1);
  Bytes there(200'000);
  Bytes back(150'000);
  for (std::byte& one : there) one = static_cast<std::byte>(random());
  for (std::byte& one : back) one = static_cast<std::byte>(random());
  auto sender = std::async(std::launch::async, [&] { front_end.send(there); });
  auto other_sender = std::async(std::launch::async, [&] { back_end.send(back); });
  auto receiver = std::async(std::launch::async, [&] { return take(front_end, back.size()); });
  EXPECT_TRUE(take(back_end, there.size()) == there);
  EXPECT_TRUE(receiver.get() == back);
}

TEST_F(TapTest, a_side_that_does_not_read_does_not_hold_up_the_other_direction) {
  std::thread flood([fd = front_end.fd()] {
    const Bytes bytes = bytes_of(u64_frame(2, user::version, 5));
    for (int i = 0; i < 100'000; ++i) {
      if (::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
    }
  });
  flood.join();
  back_end.send(u64_frame(1, user::version | user::reply_flag, 1));
  EXPECT_EQ(front_end.receive().header.request, 1U);
}

TEST_F(TapTest, replies_are_told_as_such) {
  front_end.send(empty_frame(1));
  back_end.receive();
  back_end.send(u64_frame(1, user::version | user::reply_flag, 7));
  EXPECT_EQ(u64_of(front_end.receive()), 7U);
  const auto seen = notes.wait_seen(2);
  EXPECT_FALSE(seen[0].is_reply());
  EXPECT_TRUE(seen[1].is_reply());
  EXPECT_EQ(seen[1].from, Side::back_end);
}

// ---- the back-end channel

TEST_F(TapTest, the_back_end_channel_is_told_too) {
  auto ends = user::socket_pair();
  Frame offer = empty_frame(21);
  offer.fds.push_back(std::move((*ends)[1]));
  Peer asked(std::move((*ends)[0]));
  front_end.send(offer);
  offer.fds.clear();
  Frame arrived = back_end.receive();
  ASSERT_EQ(arrived.fds.size(), 1U);
  Peer asking(std::move(arrived.fds[0]));
  Frame call = empty_frame(2, user::version | user::need_reply_flag);
  call.fds = some_fds(1);
  asking.send(call);
  const Frame came = asked.receive();
  EXPECT_EQ(bytes_of(came), bytes_of(call));
  EXPECT_EQ(came.fds.size(), 1U);
  asked.send(u64_frame(2, user::version | user::reply_flag, 0));
  EXPECT_EQ(asking.receive().header.request, 2U);
  const auto seen = notes.wait_seen(3);
  EXPECT_EQ(seen[1].channel, Channel::back_end);
  EXPECT_EQ(seen[1].from, Side::back_end);
  EXPECT_STREQ(seen[1].name(), "BACKEND_CONFIG_CHANGE_MSG");
  EXPECT_FALSE(seen[1].is_reply());
  EXPECT_TRUE(seen[2].is_reply());
  asking.close();
  EXPECT_TRUE(asked.closed());
  front_end.send(empty_frame(3));
  EXPECT_EQ(back_end.receive().header.request, 3U) << "the main channel goes on";
}

TEST_F(TapTest, the_back_end_channel_is_found_though_its_header_comes_in_pieces) {
  auto ends = user::socket_pair();
  const ino_t sent = inode((*ends)[1].get());
  std::vector<UniqueFd> fds;
  fds.push_back(std::move((*ends)[1]));
  const Bytes bytes = bytes_of(empty_frame(21));
  front_end.send(std::span(bytes).first(2), fds);
  std::this_thread::sleep_for(20ms);
  front_end.send(std::span(bytes).subspan(2));
  const Frame arrived = back_end.receive();
  ASSERT_EQ(arrived.fds.size(), 1U);
  EXPECT_NE(inode(arrived.fds[0].get()), sent) << "it is one of the tap's";
}

TEST_F(TapTest, a_back_end_channel_that_is_a_pipe_passes_as_it_is) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd kept(ends[0]);
  Frame offer = empty_frame(21);
  offer.fds.emplace_back(ends[1]);
  front_end.send(offer);
  EXPECT_EQ(inode(back_end.receive().fds.at(0).get()), inode(kept.get()));
}

// ---- ends

TEST_F(TapTest, when_the_front_end_leaves_the_back_end_is_told_after_its_last_words) {
  front_end.send(empty_frame(3));
  front_end.close();
  EXPECT_EQ(back_end.receive().header.request, 3U);
  EXPECT_TRUE(back_end.closed());
  EXPECT_TRUE(notes.wait_ended(1));
  EXPECT_EQ(notes.first_, Side::front_end);
}

TEST_F(TapTest, when_the_back_end_leaves_the_front_end_is_told_after_its_last_words) {
  back_end.send(u64_frame(1, user::version | user::reply_flag, 7));
  back_end.close();
  EXPECT_EQ(u64_of(front_end.receive()), 7U);
  EXPECT_TRUE(front_end.closed());
  EXPECT_TRUE(notes.wait_ended(1));
  EXPECT_EQ(notes.first_, Side::back_end);
}

TEST_F(TapTest, a_front_end_that_only_stops_sending_still_gets_its_reply) {
  front_end.send(empty_frame(1));
  ::shutdown(front_end.fd(), SHUT_WR);
  back_end.receive();
  EXPECT_TRUE(back_end.closed());
  back_end.send(u64_frame(1, user::version | user::reply_flag, 7));
  EXPECT_EQ(u64_of(front_end.receive()), 7U);
}

TEST_F(TapTest, the_next_front_end_is_served_and_two_at_once_do_not_meet) {
  front_end.close();
  EXPECT_TRUE(notes.wait_ended(1));
  Peer second;
  Peer second_back_end;
  Peer third;
  Peer third_back_end;
  connect(second, second_back_end);
  connect(third, third_back_end);
  third.send(empty_frame(3));
  second.send(empty_frame(1));
  EXPECT_EQ(second_back_end.receive().header.request, 1U);
  EXPECT_EQ(third_back_end.receive().header.request, 3U);
  const auto seen = notes.wait_seen(2);
  EXPECT_NE(seen[0].session, seen[1].session);
}

TEST_F(TapTest, without_a_back_end_a_front_end_is_turned_away_with_a_sentence) {
  stop_back_end();
  Peer nobody(*user::connect_to(tap_path()));
  EXPECT_TRUE(nobody.closed());
  EXPECT_THAT(notes.wait_away(), HasSubstr("nobody listens at"));
}

TEST_F(TapTest, no_file_descriptor_stays_behind) {
  front_end.close();
  back_end.close();
  ASSERT_TRUE(notes.wait_ended(1));
  const size_t before = open_fds();
  for (int i = 2; i < 8; ++i) {
    Peer front;
    Peer back;
    connect(front, back);
    auto ends = user::socket_pair();
    Frame offer = empty_frame(21);
    offer.fds.push_back(std::move((*ends)[1]));
    front.send(offer);
    offer.fds.clear();
    Frame with_fds = empty_frame(5);
    with_fds.fds = some_fds(30);
    front.send(with_fds);  // nobody receives them
    front.close();
    ASSERT_TRUE(notes.wait_ended(i));
  }
  for (int i = 0; i < 100 && open_fds() > before; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_LE(open_fds(), before);
}

}  // namespace
}  // namespace ringway::tools
