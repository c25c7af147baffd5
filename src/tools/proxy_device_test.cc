#include "ringway/tools/proxy_device.h"

#include <gmock/gmock.h>
#include <linux/virtio_config.h>

#include <condition_variable>

#include "ringway/user/peer_test.h"
#include "ringway/vhost/session.h"

namespace ringway::tools {
namespace {

using namespace user::testing;
using namespace vhost;
using ::testing::HasSubstr;

// A back-end that records.
class Owner final : public user::SessionOwner {
 public:
  Result<Device*> connected() override { return &device; }
  void disconnected() override {
    const std::scoped_lock lock(mutex_);
    ++left_;
    changed_.notify_all();
  }
  user::SocketFeatures socket_features() override { return socket; }
  bool wait_left(int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 3s, [&] { return left_ >= times; });
  }
  RecordingDevice device;
  user::SocketFeatures socket;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int left_ = 0;
};

// A front-end that knows whether its answer is wanted.
class Answering final : public FrontEnd, public OneWay<FrontEndRequest> {
 public:
  Result<FrontEndReply> handle(FrontEndRequest) override {
    ++asked;
    return Done{};
  }
  Result<> tell(FrontEndRequest) override {
    ++told;
    return {};
  }
  std::atomic<int> asked = 0;
  std::atomic<int> told = 0;
};

class ProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ringway-proxy-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    back_end.device.features = every_feature & ~bit(VHOST_USER_F_PROTOCOL_FEATURES);
    back_end.device.capabilities = known_protocol_features & ~transport_protocol_features;
    start_back_end();
  }
  void TearDown() override {
    front_end.reset();
    listener.reset();
    proxy.reset();
    back_end_listener.reset();
    std::filesystem::remove_all(folder_);
  }
  void start_back_end() {
    back_end_listener = *user::Listener::start();
    ASSERT_TRUE(back_end_listener->listen(path("back-end"), back_end));
  }
  void start_proxy(Mask::Taken taken = {}, std::chrono::milliseconds time_out = 3s) {
    proxy = std::make_unique<ProxyDevice>(
        ProxyDevice::Options{.back_end = path("back-end"), .taken = taken, .reply_time_out = time_out});
    listener = *user::Listener::start();
    ASSERT_TRUE(listener->listen(path("proxy"), *proxy));
  }
  void connect() {
    auto connected = user::RemoteDevice::connect(path("proxy"), {}, 3s);
    ASSERT_TRUE(connected) << connected.error().to_string();
    front_end = *std::move(connected);
  }
  void agree() {
    ASSERT_TRUE(call(*front_end, GetFeatures{}));
    const auto offered = call(*front_end, GetProtocolFeatures{});
    ASSERT_TRUE(offered);
    ASSERT_TRUE(call(*front_end, SetProtocolFeatures{*offered}));
    const uint64_t features = *call(*front_end, GetFeatures{}) | bit(VHOST_USER_F_PROTOCOL_FEATURES);
    ASSERT_TRUE(call(*front_end, SetFeatures{features}));
  }
  [[nodiscard]] std::string path(const char* name) const { return folder_ + "/" + name; }

  Owner back_end;
  std::unique_ptr<user::Listener> back_end_listener;
  std::unique_ptr<ProxyDevice> proxy;
  std::unique_ptr<user::Listener> listener;
  std::unique_ptr<user::RemoteDevice> front_end;

 private:
  std::string folder_;
};

TEST_F(ProxyTest, requests_arrive_at_the_back_end_and_its_answers_come_back) {
  start_proxy();
  connect();
  EXPECT_EQ(call(*front_end, GetFeatures{}), back_end.device.features);
  agree();
  EXPECT_TRUE(call(*front_end, SetOwner{}));
  EXPECT_EQ(call(*front_end, GetVringBase{3})->value, 77U);
  const auto config = call(*front_end, GetConfig{.offset = 4, .size = 8});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->bytes.size(), 8U);
  EXPECT_TRUE(back_end.device.saw("GET_CONFIG"));
}

// Every message that may pass does, in the form in which it came.
TEST_F(ProxyTest, every_message_passes_but_those_of_postcopy) {
  start_proxy();
  connect();
  agree();
  for (uint32_t id = 1; id <= std::variant_size_v<DeviceRequest>; ++id) {
    const char* const name = catalogue<DeviceRequest>[id - 1].name;
    if (id == 2 || id == 16) continue;  // agree() has sent them
    const bool is_postcopy = catalogue<DeviceRequest>[id - 1].need.bit == VHOST_USER_PROTOCOL_F_PAGEFAULT &&
                             catalogue<DeviceRequest>[id - 1].need.kind == Need::Kind::capability;
    const auto reply = front_end->handle(some_device_request(id));
    EXPECT_EQ(reply.has_value(), !is_postcopy) << name << (reply ? "" : reply.error().to_string());
    EXPECT_EQ(back_end.device.saw(name), !is_postcopy) << name;
  }
}

TEST_F(ProxyTest, a_file_descriptor_arrives_as_the_same_open_file) {
  start_proxy();
  connect();
  ino_t arrived = 0;
  UniqueFd kept;
  back_end.device.hook = [&](DeviceRequest& request) {
    auto* table = std::get_if<SetMemTable>(&request);
    if (table == nullptr) return;
    struct stat status{};
    ASSERT_EQ(::fstat(table->regions.at(0).fd.get(), &status), 0);
    arrived = status.st_ino;
    kept = std::move(table->regions.at(0).fd);
  };
  agree();
  UniqueFd memory(::memfd_create("memory", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memory.get(), 4096), 0);
  struct stat status{};
  ASSERT_EQ(::fstat(memory.get(), &status), 0);
  SetMemTable table;
  table.regions.push_back({.layout = some_layout(), .fd = *memory.duplicate()});
  ASSERT_TRUE(call(*front_end, std::move(table)));
  EXPECT_EQ(arrived, status.st_ino);
  // One open file: a position that is set here is seen there.
  ASSERT_EQ(::lseek(memory.get(), 1234, SEEK_SET), 1234);
  EXPECT_EQ(::lseek(kept.get(), 0, SEEK_CUR), 1234);
}

TEST_F(ProxyTest, what_is_masked_is_not_offered_and_cannot_be_used) {
  start_proxy({.features = bit(VIRTIO_F_RING_PACKED), .capabilities = bit(VHOST_USER_PROTOCOL_F_CONFIG)});
  connect();
  EXPECT_EQ(call(*front_end, GetFeatures{}), back_end.device.features & ~bit(VIRTIO_F_RING_PACKED));
  agree();
  EXPECT_FALSE(front_end->agreement().has_capability(VHOST_USER_PROTOCOL_F_CONFIG));
  EXPECT_FALSE(call(*front_end, GetConfig{.size = 8}));
  EXPECT_FALSE(back_end.device.saw("GET_CONFIG"));
}

TEST_F(ProxyTest, the_socket_offers_no_more_than_that_of_the_back_end) {
  back_end.socket.capabilities = bit(VHOST_USER_PROTOCOL_F_REPLY_ACK);
  start_proxy();
  connect();
  EXPECT_EQ(front_end->offered_by_socket()->capabilities, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
}

TEST_F(ProxyTest, features_of_the_socket_can_be_masked) {
  start_proxy({.capabilities = bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ)});
  connect();
  EXPECT_EQ(front_end->offered_by_socket()->capabilities, bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  EXPECT_EQ(*call(*front_end, GetFeatures{}) & bit(VIRTIO_F_ACCESS_PLATFORM), 0U);
}

TEST_F(ProxyTest, a_back_end_without_protocol_features_stays_one) {
  back_end.socket = {.protocol_features = false, .capabilities = 0};
  start_proxy();
  connect();
  EXPECT_FALSE(front_end->offered_by_socket()->protocol_features);
  EXPECT_EQ(call(*front_end, GetProtocolFeatures{})->bits, 0U);
  EXPECT_TRUE(call(*front_end, SetFeatures{5}));
  EXPECT_TRUE(call(*front_end, SetVringNum{0, 128}));
  EXPECT_EQ(call(*front_end, GetVringBase{0})->value, 77U);
}

TEST_F(ProxyTest, bit_30_can_be_masked) {
  start_proxy({.features = bit(VHOST_USER_F_PROTOCOL_FEATURES)});
  connect();
  EXPECT_FALSE(front_end->offered_by_socket()->protocol_features);
}

// QEMU does it for network devices.
TEST_F(ProxyTest, rings_are_enabled_before_features_are_set) {
  start_proxy();
  connect();
  ASSERT_TRUE(call(*front_end, GetFeatures{}));
  ASSERT_TRUE(call(*front_end, SetProtocolFeatures{*call(*front_end, GetProtocolFeatures{})}));
  EXPECT_TRUE(call(*front_end, SetVringEnable{0, 1}));
  EXPECT_TRUE(back_end.device.saw("SET_VRING_ENABLE"));
}

TEST_F(ProxyTest, the_back_end_reaches_its_front_end) {
  start_proxy();
  connect();
  agree();
  std::shared_ptr<FrontEnd> reached;
  back_end.device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) reached = set->front_end;
  };
  auto ours = std::make_shared<RecordingFrontEnd>();
  ASSERT_TRUE(call(*front_end, SetFrontEnd{ours}));
  ASSERT_NE(reached, nullptr);
  EXPECT_TRUE(call(*reached, ConfigChange{}));
  EXPECT_TRUE(call(*reached, ShmemMap{.range = {.shmid = 1, .length = 4096}, .fd = some_fd()}));
  ours->fail_with(Error{.fault = Fault::refused, .what = "no"});
  EXPECT_FALSE(call(*reached, ConfigChange{}));
  EXPECT_TRUE(ours->saw("BACKEND_CONFIG_CHANGE_MSG"));
  EXPECT_TRUE(ours->saw("BACKEND_SHMEM_MAP"));
  reached.reset();
  back_end.device.hook = nullptr;
}

// A front-end that never answers what it was not asked to answer held up the back-end's next message.
TEST_F(ProxyTest, what_the_back_end_only_tells_is_only_told) {
  start_proxy();
  connect();
  agree();
  std::shared_ptr<FrontEnd> reached;
  back_end.device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFrontEnd>(&request)) reached = set->front_end;
  };
  auto ours = std::make_shared<Answering>();
  ASSERT_TRUE(call(*front_end, SetFrontEnd{ours}));
  ASSERT_NE(reached, nullptr);
  EXPECT_TRUE(tell<FrontEndRequest>(*reached, ConfigChange{}));
  EXPECT_TRUE(tell<FrontEndRequest>(*reached, VringErr{0}));
  EXPECT_TRUE(call(*reached, ConfigChange{})) << "and this is answered, behind them";
  EXPECT_EQ(ours->told, 2);
  EXPECT_EQ(ours->asked, 1);
  reached.reset();
  back_end.device.hook = nullptr;
}

TEST_F(ProxyTest, a_refusal_is_passed_on_and_the_connection_stays) {
  start_proxy();
  connect();
  agree();
  back_end.device.failure = Error{.fault = Fault::refused, .what = "no"};
  const auto refused = call(*front_end, SetVringNum{0, 128});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().fault, Fault::refused);
  back_end.device.failure.reset();
  EXPECT_TRUE(call(*front_end, SetVringNum{0, 128}));
}

TEST_F(ProxyTest, one_front_end_after_another_gets_a_connection_of_its_own) {
  start_proxy();
  for (int i = 1; i <= 3; ++i) {
    connect();
    EXPECT_TRUE(call(*front_end, GetFeatures{})) << i;
    front_end.reset();
    EXPECT_TRUE(back_end.wait_left(i)) << i;
  }
}

TEST_F(ProxyTest, when_the_back_end_goes_its_front_end_is_told_and_the_next_is_served) {
  start_proxy();
  connect();
  EXPECT_TRUE(call(*front_end, GetFeatures{}));
  back_end_listener.reset();
  const auto begin = std::chrono::steady_clock::now();
  Result<uint64_t> answer = 0;
  while ((answer = call(*front_end, GetFeatures{})) && std::chrono::steady_clock::now() - begin < 3s) {
  }
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().fault, Fault::gone);
  start_back_end();
  for (int i = 0; i < 100; ++i) {
    connect();
    if (call(*front_end, GetFeatures{})) return;
    std::this_thread::sleep_for(20ms);
  }
  FAIL() << "nobody was served again";
}

TEST_F(ProxyTest, a_front_end_that_is_idle_sees_its_back_end_go) {
  start_proxy();
  Peer peer(*user::connect_to(path("proxy")));
  EXPECT_EQ(peer.ask(empty_frame(1)).header.request, 1U);
  back_end_listener.reset();
  EXPECT_TRUE(peer.closed());
}

// It was lost when the proxy saw the end before it had passed the reply on.
TEST_F(ProxyTest, the_last_reply_arrives_though_the_back_end_leaves_at_once) {
  back_end_listener.reset();
  auto listening = *user::listen_at(path("short"));
  proxy = std::make_unique<ProxyDevice>(
      ProxyDevice::Options{.back_end = path("short"), .taken = {}, .reply_time_out = 3s});
  listener = *user::Listener::start();
  ASSERT_TRUE(listener->listen(path("proxy"), *proxy));
  for (int i = 0; i < 200; ++i) {
    Peer front(*user::connect_to(path("proxy")));
    pollfd entry{.fd = listening.get(), .events = POLLIN};
    ASSERT_EQ(::poll(&entry, 1, 3000), 1);
    Peer back(UniqueFd(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC)));
    ASSERT_EQ(back.receive().header.request, 1U) << "what the proxy itself asks";
    back.send(u64_frame(1, user::version | user::reply_flag, 0));
    front.send(empty_frame(1));
    ASSERT_EQ(back.receive().header.request, 1U);
    back.send(u64_frame(1, user::version | user::reply_flag, 5));
    back.close();
    ASSERT_TRUE(front.readable(3s)) << i;
    ASSERT_EQ(u64_of(front.receive()), 5U) << i;
    ASSERT_TRUE(front.closed()) << i;
  }
}

TEST_F(ProxyTest, what_is_not_there_is_said_in_a_sentence) {
  ProxyDevice nobody({.back_end = path("nobody"), .taken = {}});
  const auto reached = nobody.reach_back_end();
  ASSERT_FALSE(reached);
  EXPECT_THAT(reached.error(), HasSubstr("there is nothing at"));
}

TEST_F(ProxyTest, a_back_end_that_never_answers_is_waited_for_in_seconds) {
  auto listening = user::listen_at(path("silent"));
  ASSERT_TRUE(listening);
  ProxyDevice silent({.back_end = path("silent"), .taken = {}, .reply_time_out = 200ms});
  const auto begin = std::chrono::steady_clock::now();
  const auto reached = silent.reach_back_end();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  ASSERT_FALSE(reached);
  EXPECT_THAT(reached.error(), HasSubstr("did not answer within 0.2 s"));
}

TEST_F(ProxyTest, no_file_descriptor_stays_behind) {
  start_proxy();
  connect();
  agree();
  front_end.reset();
  ASSERT_TRUE(back_end.wait_left(1));
  const size_t before = open_fds();
  for (int i = 2; i < 6; ++i) {
    connect();
    agree();
    ASSERT_TRUE(call(*front_end, SetFrontEnd{std::make_shared<RecordingFrontEnd>()}));
    ASSERT_TRUE(call(*front_end, SetVringKick{0, some_fd()}));
    front_end.reset();
    ASSERT_TRUE(back_end.wait_left(i));
  }
  for (int i = 0; i < 100 && open_fds() > before; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_LE(open_fds(), before);
}

}  // namespace
}  // namespace ringway::tools
