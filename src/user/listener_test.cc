#include "ringway/user/listener.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <condition_variable>
#include <fstream>

#include "ringway/base/failing_call_test.h"
#include "ringway/user/peer_test.h"
#include "ringway/user/place.h"
#include "ringway/user/sockets.h"

namespace ringway::user {
namespace {

using namespace testing;
using namespace vhost;
using ::testing::HasSubstr;

// Counts who comes and goes; disconnected() takes as long as the test wants.
class Owner final : public SessionOwner {
 public:
  Result<Device*> connected() override {
    std::scoped_lock lock(mutex_);
    if (present_) overlapped_ = true;
    if (refuses) return refused("not now");
    present_ = true;
    ++came_;
    changed_.notify_all();
    return &device;
  }
  void disconnected() override {
    if (before_leaving) before_leaving();
    std::scoped_lock lock(mutex_);
    present_ = false;
    ++left_;
    changed_.notify_all();
  }
  bool wait_came(int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 3s, [&] { return came_ >= times; });
  }
  bool wait_left(int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 3s, [&] { return left_ >= times; });
  }
  bool overlapped() {
    std::scoped_lock lock(mutex_);
    return overlapped_;
  }
  int came() {
    std::scoped_lock lock(mutex_);
    return came_;
  }

  RecordingDevice device;
  std::atomic<bool> refuses = false;
  std::function<void()> before_leaving;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool present_ = false;
  bool overlapped_ = false;
  int came_ = 0;
  int left_ = 0;
};

class ListenerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() / fmt::format("ringway-{}-XXXXXX", ::getpid());
    std::string name = directory_;
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    path = directory_ / "socket";
    auto started = Listener::start(options());
    ASSERT_TRUE(started) << started.error().to_string();
    listener = *std::move(started);
  }
  void TearDown() override {
    listener.reset();
    std::filesystem::remove_all(directory_);
  }
  virtual ListenerOptions options() {
    return {.reconnect_after = 5ms, .reconnect_at_most = 50ms, .message_time_out = 300ms};
  }
  static Peer connect(const std::string& to) {
    auto fd = connect_to(to);
    EXPECT_TRUE(fd) << fd.error().to_string();
    if (!fd) return {};
    ::fcntl(fd->get(), F_SETFL, 0);
    return Peer(*std::move(fd));
  }
  Peer connect() { return connect(path); }

  std::filesystem::path directory_;
  std::string path;
  Owner owner;
  std::unique_ptr<Listener> listener;
};

TEST_F(ListenerTest, a_front_end_that_connects_is_served) {
  ASSERT_TRUE(listener->listen(path, owner));
  EXPECT_EQ(connect().ask(empty_frame(1)).header.request, 1U);
  EXPECT_TRUE(owner.wait_left(1));
}

TEST_F(ListenerTest, front_ends_come_and_go_any_number_of_times) {
  ASSERT_TRUE(listener->listen(path, owner));
  for (int i = 1; i <= 100; ++i) {
    const Peer peer = connect();
    ASSERT_EQ(peer.ask(empty_frame(1)).header.request, 1U) << i;
  }
  EXPECT_TRUE(owner.wait_left(100));
  EXPECT_FALSE(owner.overlapped());
}

TEST_F(ListenerTest, H038_a_second_front_end_is_sent_away_and_the_first_goes_on) {
  ASSERT_TRUE(listener->listen(path, owner));
  const Peer first = connect();
  ASSERT_EQ(first.ask(empty_frame(1)).header.request, 1U);
  const Peer second = connect();
  EXPECT_TRUE(second.closed());
  EXPECT_EQ(first.ask(empty_frame(1)).header.request, 1U);
  EXPECT_EQ(owner.came(), 1);
}

TEST_F(ListenerTest, the_next_front_end_waits_while_the_rings_of_the_one_before_are_being_stopped) {
  std::promise<void> go_on;
  owner.before_leaving = [&, wait = go_on.get_future().share()] { wait.wait(); };
  ASSERT_TRUE(listener->listen(path, owner));
  Peer first = connect();
  ASSERT_EQ(first.ask(empty_frame(1)).header.request, 1U);
  first.close();
  const Peer second = connect();
  second.send(empty_frame(1));
  EXPECT_FALSE(second.readable(100ms));
  go_on.set_value();
  EXPECT_EQ(second.receive().header.request, 1U);
  EXPECT_FALSE(owner.overlapped());
}

TEST_F(ListenerTest, an_owner_that_refuses_sends_the_front_end_away_and_may_accept_the_next) {
  owner.refuses = true;
  ASSERT_TRUE(listener->listen(path, owner));
  EXPECT_TRUE(connect().closed());
  owner.refuses = false;
  for (int i = 0; i < 100 && owner.came() == 0; ++i) {
    const Peer peer = connect();
    peer.send(empty_frame(1));
    static_cast<void>(peer.readable(50ms));
  }
  EXPECT_GT(owner.came(), 0);
}

TEST_F(ListenerTest, a_violation_ends_one_session_and_the_next_is_served) {
  ASSERT_TRUE(listener->listen(path, owner));
  const Peer bad = connect();
  bad.send(empty_frame(1, 0));
  EXPECT_TRUE(bad.closed());
  ASSERT_TRUE(owner.wait_left(1));
  EXPECT_EQ(connect().ask(empty_frame(1)).header.request, 1U);
}

TEST_F(ListenerTest, H001_a_front_end_that_falls_silent_in_a_header_holds_up_nobody_else) {
  Owner other;
  const std::string other_path = directory_ / "other";
  ASSERT_TRUE(listener->listen(path, owner));
  ASSERT_TRUE(listener->listen(other_path, other));
  const Peer silent = connect();
  const Bytes bytes = bytes_of(empty_frame(1));
  silent.send(std::span(bytes).first(3));
  EXPECT_EQ(connect(other_path).ask(empty_frame(1)).header.request, 1U);
  EXPECT_TRUE(silent.closed());
  listener->stop();  // before the owner ends
}

TEST_F(ListenerTest, H040_a_long_request_holds_up_nobody_else) {
  Owner other;
  const std::string other_path = directory_ / "other";
  std::promise<void> go_on;
  owner.device.hook = [&, wait = go_on.get_future().share()](DeviceRequest&) { wait.wait(); };
  ASSERT_TRUE(listener->listen(path, owner));
  ASSERT_TRUE(listener->listen(other_path, other));
  const Peer slow = connect();
  slow.send(empty_frame(1));
  slow.send(empty_frame(1));
  EXPECT_EQ(connect(other_path).ask(empty_frame(1)).header.request, 1U);
  go_on.set_value();
  EXPECT_EQ(slow.receive().header.request, 1U);
  EXPECT_EQ(slow.receive().header.request, 1U);
  listener->stop();  // before the owner ends
}

TEST_F(ListenerTest, H317_a_session_or_a_listener_that_cannot_have_a_thread_is_an_error) {
  std::jthread([&] {
    make_fail(SYS_clone3, EAGAIN);
    const auto started = Listener::start(options());
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().os_error, EAGAIN);
    auto ends = socket_pair();
    ASSERT_TRUE(ends);
    const Peer front_end(std::move((*ends)[0]));
    ASSERT_TRUE(listener->adopt(std::move((*ends)[1]), owner));
    EXPECT_TRUE(front_end.closed());
  }).join();
  ASSERT_TRUE(listener->listen(path, owner));
  EXPECT_EQ(connect().ask(empty_frame(1)).header.request, 1U);
}

// ---- the socket path

TEST_F(ListenerTest, H041_a_stale_socket_is_replaced) {
  {
    ASSERT_TRUE(listen_at(path));
  }  // closed, not removed
  ASSERT_TRUE(std::filesystem::is_socket(path));
  ASSERT_TRUE(listener->listen(path, owner));
  EXPECT_EQ(connect().ask(empty_frame(1)).header.request, 1U);
}

TEST_F(ListenerTest, H041_a_live_socket_is_not_replaced) {
  auto other = listen_at(path);
  ASSERT_TRUE(other);
  const auto result = listener->listen(path, owner);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().to_string(), HasSubstr("another process serves the socket path"));
  EXPECT_TRUE(connect_to(path));
}

TEST_F(ListenerTest, H041_what_is_no_socket_is_not_replaced) {
  std::ofstream(path) << "precious";
  EXPECT_THAT(listener->listen(path, owner).error().to_string(), HasSubstr("not a socket"));
  EXPECT_EQ(std::filesystem::file_size(path), 8U);

  const std::string folder = directory_ / "folder";
  std::filesystem::create_directory(folder);
  EXPECT_FALSE(listener->listen(folder, owner));

  const std::string link = directory_ / "link";
  std::filesystem::create_symlink(directory_ / "nowhere", link);
  EXPECT_FALSE(listener->listen(link, owner));
  EXPECT_TRUE(std::filesystem::is_symlink(link));
}

TEST_F(ListenerTest, H041_a_datagram_socket_is_not_replaced) {
  const UniqueFd other(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_FALSE(listener->listen(path, owner));
}

TEST_F(ListenerTest, H041_a_path_of_108_bytes_is_refused_in_plain_words) {
  const auto result = listener->listen(std::string(108, 'x'), owner);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().to_string(), HasSubstr("at most 107 bytes (108"));
  EXPECT_FALSE(listener->listen("", owner));
}

TEST_F(ListenerTest, a_path_of_107_bytes_is_used) {
  const std::string long_path = (directory_ / std::string(106 - directory_.string().size(), 'x'));
  ASSERT_EQ(long_path.size(), 107U);
  ASSERT_TRUE(listener->listen(long_path, owner));
  EXPECT_EQ(connect(long_path).ask(empty_frame(1)).header.request, 1U);
}

TEST_F(ListenerTest, a_path_of_107_bytes_whose_last_part_is_short_is_used_and_nothing_is_left_beside_it) {
  const std::filesystem::path deep = directory_ / std::string(104 - directory_.string().size(), 'x');
  std::filesystem::create_directory(deep);
  const std::string long_path = deep / "s";
  ASSERT_EQ(long_path.size(), 107U);
  ASSERT_TRUE(listener->listen(long_path, owner));
  EXPECT_EQ(connect(long_path).ask(empty_frame(1)).header.request, 1U);
  EXPECT_EQ(std::ranges::distance(std::filesystem::directory_iterator(deep)), 1);
}

TEST_F(ListenerTest, a_socket_that_can_be_seen_can_be_connected_to) {
  for (int round = 0; round < 500; ++round) {
    std::atomic<bool> watching = false;
    auto watcher = std::async(std::launch::async, [&] {
      watching = true;
      struct stat status{};
      while (::lstat(path.c_str(), &status) != 0) {
      }
      return connect_to(path).has_value();
    });
    while (!watching) std::this_thread::yield();
    const auto listening = listen_at(path);
    ASSERT_TRUE(listening);
    ASSERT_TRUE(watcher.get()) << round;
    std::filesystem::remove(path);
  }
}

TEST_F(ListenerTest, while_a_stale_socket_is_replaced_the_path_is_never_empty) {
  {
    ASSERT_TRUE(listen_at(path));
  }
  std::atomic<bool> done = false;
  auto watcher = std::async(std::launch::async, [&] {
    struct stat status{};
    while (!done) {
      if (::lstat(path.c_str(), &status) != 0) return false;
    }
    return true;
  });
  for (int round = 0; round < 500; ++round) ASSERT_TRUE(listen_at(path));
  done = true;
  EXPECT_TRUE(watcher.get());
  EXPECT_EQ(std::ranges::distance(std::filesystem::directory_iterator(directory_)), 1) << "nothing is left";
}

TEST_F(ListenerTest, of_many_who_replace_a_stale_socket_at_once_one_listens_there) {
  for (int round = 0; round < 50; ++round) {
    {
      ASSERT_TRUE(listen_at(path));
    }
    std::vector<std::future<Result<UniqueFd>>> all(4);
    for (auto& one : all) one = std::async(std::launch::async, [&] { return listen_at(path); });
    std::vector<UniqueFd> listening;
    for (auto& one : all) {
      auto result = one.get();
      if (result) listening.push_back(*std::move(result));
    }
    ASSERT_EQ(listening.size(), 1U) << round;
    const auto front_end = connect_to(path);
    ASSERT_TRUE(front_end);
    EXPECT_TRUE(UniqueFd(::accept(listening[0].get(), nullptr, nullptr)));
    std::filesystem::remove(path);
  }
}

TEST_F(ListenerTest, stop_removes_the_socket_it_has_made_and_no_other) {
  ASSERT_TRUE(listener->listen(path, owner));
  const std::string other = directory_ / "other";
  ASSERT_TRUE(listener->listen(other, owner));
  std::filesystem::remove(other);
  auto replaced = listen_at(other);
  ASSERT_TRUE(replaced);
  listener->stop();
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(std::filesystem::exists(other));
}

class ModeTest : public ListenerTest {
  ListenerOptions options() override { return {.socket_mode = 0640}; }
};

TEST_F(ModeTest, the_socket_gets_the_permissions_that_were_asked_for) {
  const mode_t before = ::umask(0177);
  ASSERT_TRUE(listener->listen(path, owner));
  ::umask(before);
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
}

class UserTest : public ListenerTest {
  ListenerOptions options() override { return {.allowed_users = {::getuid() + 1}}; }
};

TEST_F(UserTest, H044_a_user_who_may_not_connect_is_sent_away) {
  ASSERT_TRUE(listener->listen(path, owner));
  EXPECT_TRUE(connect().closed());
  EXPECT_EQ(owner.came(), 0);
}

// ---- inherited sockets

TEST_F(ListenerTest, an_inherited_socket_that_listens_serves_one_front_end_after_another) {
  auto fd = listen_at(path);
  ASSERT_TRUE(fd);
  ::fcntl(fd->get(), F_SETFL, 0);  // as inherited: blocking
  ASSERT_TRUE(listener->adopt(*std::move(fd), owner));
  EXPECT_EQ(connect().ask(empty_frame(1)).header.request, 1U);
  ASSERT_TRUE(owner.wait_left(1));
  EXPECT_EQ(connect().ask(empty_frame(1)).header.request, 1U);
  listener->stop();
  EXPECT_TRUE(std::filesystem::exists(path)) << "not ours to remove";
}

class FinishTest : public ListenerTest {
 protected:
  ListenerOptions options() override {
    return {.finished = [this] { finished.set_value(); }};
  }
  std::promise<void> finished;
};

TEST_F(FinishTest, an_inherited_connection_is_served_once_and_then_all_is_finished) {
  auto ends = socket_pair();
  ASSERT_TRUE(ends);
  Peer peer(std::move((*ends)[0]));
  ASSERT_TRUE(listener->adopt(std::move((*ends)[1]), owner));
  EXPECT_EQ(peer.ask(empty_frame(1)).header.request, 1U);
  auto done = finished.get_future();
  EXPECT_EQ(done.wait_for(50ms), std::future_status::timeout);
  peer.close();
  EXPECT_EQ(done.wait_for(2s), std::future_status::ready);
}

TEST_F(ListenerTest, an_inherited_file_that_is_no_stream_socket_is_refused) {
  EXPECT_FALSE(listener->adopt(some_fd(), owner));
  EXPECT_FALSE(listener->adopt(UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)), owner));
  EXPECT_FALSE(listener->adopt(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), owner));
}

// ---- client mode

Peer accept_from(int listening) {
  pollfd entry{.fd = listening, .events = POLLIN};
  EXPECT_EQ(::poll(&entry, 1, 3000), 1) << "nobody connected";
  return Peer(UniqueFd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC)));
}

TEST_F(ListenerTest, in_client_mode_we_connect_as_soon_as_the_front_end_listens) {
  ASSERT_TRUE(listener->connect(path, owner));
  std::this_thread::sleep_for(30ms);
  auto front_end = listen_at(path);
  ASSERT_TRUE(front_end);
  EXPECT_EQ(accept_from(front_end->get()).ask(empty_frame(1)).header.request, 1U);
}

TEST_F(ListenerTest, in_client_mode_we_come_back_whenever_the_connection_ends) {
  auto front_end = listen_at(path);
  ASSERT_TRUE(front_end);
  ASSERT_TRUE(listener->connect(path, owner));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(accept_from(front_end->get()).ask(empty_frame(1)).header.request, 1U) << i;
  }
  EXPECT_TRUE(owner.wait_left(9));
  EXPECT_FALSE(owner.overlapped());
}

TEST_F(ListenerTest, in_client_mode_reconnecting_is_bounded_in_speed) {
  auto front_end = listen_at(path);
  ASSERT_TRUE(front_end);
  ASSERT_TRUE(listener->connect(path, owner));
  const auto end = std::chrono::steady_clock::now() + 300ms;
  int times = 0;
  while (std::chrono::steady_clock::now() < end) {
    pollfd entry{.fd = front_end->get(), .events = POLLIN};
    if (::poll(&entry, 1, 20) != 1) continue;
    const UniqueFd at_once_closed(::accept4(front_end->get(), nullptr, nullptr, SOCK_CLOEXEC));
    ++times;
  }
  EXPECT_GE(times, 3);
  EXPECT_LE(times, 15);  // 4, 8, 15, 30, 38, 38, ... milliseconds apart at the shortest
}

// ---- many, and none left

size_t threads() {
  const std::filesystem::directory_iterator all("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

TEST_F(ListenerTest, five_hundred_devices_are_listened_for_by_one_thread) {
  const size_t before = threads();
  std::vector<std::unique_ptr<Owner>> owners;
  for (int i = 0; i < 500; ++i) {
    owners.push_back(std::make_unique<Owner>());
    ASSERT_TRUE(listener->listen(directory_ / std::to_string(i), *owners.back()));
  }
  EXPECT_EQ(threads(), before);
  for (int i = 0; i < 500; i += 7) {
    EXPECT_EQ(connect(directory_ / std::to_string(i)).ask(empty_frame(1)).header.request, 1U);
    EXPECT_TRUE(owners[i]->wait_left(1));
  }
  listener->stop();
  for (int i = 0; i < 500; ++i) EXPECT_FALSE(std::filesystem::exists(directory_ / std::to_string(i)));
}

TEST_F(ListenerTest, H043_stop_ends_all_sessions_within_a_moment) {
  std::vector<std::unique_ptr<Owner>> owners;
  std::vector<Peer> peers;
  for (int i = 0; i < 20; ++i) {
    owners.push_back(std::make_unique<Owner>());
    const std::string where = directory_ / std::to_string(i);
    ASSERT_TRUE(listener->listen(where, *owners.back()));
    peers.push_back(connect(where));
    ASSERT_EQ(peers.back().ask(empty_frame(1)).header.request, 1U);
  }
  const Bytes bytes = bytes_of(empty_frame(1));
  peers[0].send(std::span(bytes).first(5));
  const auto start = std::chrono::steady_clock::now();
  listener->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 200ms);
  for (const auto& one : owners) EXPECT_TRUE(one->wait_left(1));
  for (const Peer& peer : peers) EXPECT_TRUE(peer.closed());
}

TEST_F(ListenerTest, nothing_can_be_added_after_stop) {
  listener->stop();
  EXPECT_FALSE(listener->listen(path, owner));
  listener->stop();
}

double cpu_seconds() {
  timespec spent{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) / 1e9;
}

TEST_F(ListenerTest, H314_running_out_of_file_descriptors_does_not_spin_and_is_recovered_from) {
  ASSERT_TRUE(listener->listen(path, owner));
  const auto client = connect_to(directory_ / "nowhere");  // warms up what opens files once
  EXPECT_FALSE(client);
  UniqueFd waiting(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(waiting.get()) + 1;
  std::vector<UniqueFd> holes;  // everything below is taken as well
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  while (true) {
    const int fd = ::dup(waiting.get());
    if (fd < 0) break;
    holes.emplace_back(fd);
  }
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::connect(waiting.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const double cpu_before = cpu_seconds();
  std::this_thread::sleep_for(500ms);
  const double spent = cpu_seconds() - cpu_before;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_LT(spent, 0.1);
  EXPECT_EQ(Peer(std::move(waiting)).ask(empty_frame(1)).header.request, 1U);
}

TEST_F(ListenerTest, every_frame_that_passes_can_be_observed) {
  std::mutex mutex;
  std::vector<std::string> seen;
  auto observed = Listener::start({.observer = [&](Direction direction, const Frame& frame) {
    const std::scoped_lock lock(mutex);
    seen.push_back((direction == Direction::sent ? "> " : "< ") + to_hex(bytes_of(frame)));
  }});
  ASSERT_TRUE(observed);
  ASSERT_TRUE((*observed)->listen(path, owner));
  connect().ask(empty_frame(17));
  ASSERT_TRUE(owner.wait_left(1));
  const std::scoped_lock lock(mutex);
  EXPECT_THAT(seen, ::testing::ElementsAre("< 11000000 01000000 00000000",
                                           "> 11000000 05000000 08000000 00000000 00000000"));
}

TEST(BackOff, doubles_up_to_its_limit_and_is_shortened_by_at_most_a_quarter) {
  BackOff delays(100ms, 1000ms);
  for (const auto full : {100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    const auto delay = delays.next();
    EXPECT_LE(delay, full);
    EXPECT_GE(delay, full * 3 / 4);
  }
  delays.reset();
  EXPECT_LE(delays.next(), 100ms);
}

}  // namespace
}  // namespace ringway::user
