#include "ringway/device/port/user.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>

#include "ringway/device/port/switch_rig_test.h"

namespace ringway::port {
namespace {

using test::Bytes;
using test::hex;
using test::naive_sum;
using test::Queues;
using test::operator+;  // NOLINT(misc-unused-using-decls): it is used below, by its sign

// A server on this machine's loopback that says what it was told, once.
class EchoServer {
 public:
  EchoServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{
        .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    port = ntohs(address.sin_port);
    thread_ = std::jthread([this] {
      const UniqueFd client(::accept(listener_.get(), nullptr, nullptr));
      const timeval patience{.tv_sec = 5, .tv_usec = 0};
      ::setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
      char text[64];
      const ssize_t got = ::recv(client.get(), text, sizeof text, 0);
      if (got > 0) (void)!::send(client.get(), text, static_cast<size_t>(got), MSG_NOSIGNAL);
    });
  }
  ~EchoServer() { ::shutdown(listener_.get(), SHUT_RDWR); }
  uint16_t port = 0;

 private:
  UniqueFd listener_;
  std::jthread thread_;
};

constexpr Mac gateway = 0x02'02'00'0a'55'52;  // 52:55:0a:00:02:02
constexpr uint8_t syn = 2;
constexpr uint8_t ack = 16;
constexpr uint8_t psh = 8;
constexpr uint8_t rst = 4;

class UserPortTest : public testing::Test {
 protected:
  void open(const UserOptions& options = {}) {
    queues_.reset();
    port_ = test::value_of(open_user(options));
    queues_ = std::make_unique<Queues>(*port_, *loop_, 0);
  }
  static Bytes arp() {
    return test::ethernet(broadcast_mac, test::station_mac(1),
                          hex("0001 0800 06 04 0001") + test::mac_bytes(test::station_mac(1)) +
                              hex("0a00020f 000000000000 0a000202"),
                          0x0806);
  }
  void meet() {
    queues_->send(arp());
    const Bytes answer = queues_->next().bytes;
    ASSERT_GE(answer.size(), 42U);
    EXPECT_EQ(peek<be16>(&answer[20]), 2) << "an ARP reply";
    EXPECT_EQ(peek_mac(&answer[22]), gateway);
  }
  // From 10.0.2.15:1000 to 10.0.2.2.
  void send_tcp(uint16_t to, uint8_t flags, uint32_t sequence, uint32_t acknowledged,
                const std::string& text = {}) {
    Bytes tcp = hex("03e8 0000 00000000 00000000 50 00 ffff 0000 0000");
    poke(&tcp[2], be16(to));
    poke(&tcp[4], be32(sequence));
    poke(&tcp[8], be32(acknowledged));
    tcp[13] = std::byte{flags};
    for (const char c : text) tcp.push_back(static_cast<std::byte>(c));
    Bytes ip = hex("4500 0000 0001 4000 40 06 0000 0a00020f 0a000202");
    poke(&ip[2], be16(static_cast<uint16_t>(20 + tcp.size())));
    poke(&ip[10], be16(static_cast<uint16_t>(~naive_sum(ip))));
    const uint32_t pseudo = naive_sum(std::span(ip).subspan(12)) + 6 + static_cast<uint32_t>(tcp.size());
    poke(&tcp[16], be16(static_cast<uint16_t>(~naive_sum(tcp, pseudo))));
    queues_->send(test::ethernet(gateway, test::station_mac(1), ip + tcp, ethertype_ipv4));
  }
  // The next TCP segment, from its header on; empty if none comes.
  Bytes next_tcp() {
    for (;;) {
      Bytes frame = queues_->next().bytes;
      if (frame.empty()) return {};
      const auto place = find_ip(frame);
      if (!place || place->protocol != protocol_tcp) continue;
      EXPECT_TRUE(test::checksums_are_right(frame));
      const size_t end = place->network + peek<be16>(&frame[place->network + 2]);
      return {frame.begin() + static_cast<ptrdiff_t>(place->transport),
              frame.begin() + static_cast<ptrdiff_t>(end)};
    }
  }

  std::unique_ptr<loop::Loop> loop_ = loop::testing::start_or_fail({});
  std::unique_ptr<Port> port_;
  std::unique_ptr<Queues> queues_;
};

TEST_F(UserPortTest, dhcp_offers_an_address) {
  open();
  Bytes dhcp = hex("01 01 06 00 12345678 0000 8000") + Bytes(16) + test::mac_bytes(test::station_mac(1)) +
               Bytes(202) + hex("63825363 35 01 01 ff");
  Bytes udp = hex("0044 0043 0000 0000") + dhcp;
  poke(&udp[4], be16(static_cast<uint16_t>(udp.size())));
  Bytes ip = hex("4500 0000 0001 0000 40 11 0000 00000000 ffffffff");
  poke(&ip[2], be16(static_cast<uint16_t>(20 + udp.size())));
  poke(&ip[10], be16(static_cast<uint16_t>(~naive_sum(ip))));
  queues_->send(test::ethernet(broadcast_mac, test::station_mac(1), ip + udp, ethertype_ipv4));
  const Bytes offer = queues_->next().bytes;
  ASSERT_GT(offer.size(), 62U);
  EXPECT_EQ(peek<be32>(&offer[14 + 20 + 8 + 16]), 0x0a00020f) << "your address";
}

TEST_F(UserPortTest, a_guest_reaches_a_server_of_this_machine) {
  EchoServer server;
  open();
  meet();
  send_tcp(server.port, syn, 100, 0);
  const Bytes accepted = next_tcp();
  ASSERT_FALSE(accepted.empty());
  ASSERT_EQ(accepted[13], std::byte{syn | ack});
  const uint32_t theirs = peek<be32>(&accepted[4]) + 1;
  send_tcp(server.port, ack, 101, theirs);
  send_tcp(server.port, ack | psh, 101, theirs, "hello");
  std::string heard;
  while (heard.size() < 5) {
    const Bytes segment = next_tcp();
    ASSERT_FALSE(segment.empty()) << "nothing came back";
    const size_t header = std::to_integer<size_t>(segment[12] >> 4) * 4;
    for (size_t i = header; i < segment.size(); ++i) heard += static_cast<char>(segment[i]);
  }
  EXPECT_EQ(heard, "hello");
}

TEST_F(UserPortTest, a_forwarded_port_reaches_the_guest) {
  uint16_t free_port = 0;
  {
    EchoServer for_a_moment;
    free_port = for_a_moment.port;
  }
  open({.forwards = {{.host = {htonl(INADDR_LOOPBACK)}, .host_port = free_port, .guest_port = 22}}});
  meet();
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  const sockaddr_in address{.sin_family = AF_INET,
                            .sin_port = htons(free_port),
                            .sin_addr = {htonl(INADDR_LOOPBACK)},
                            .sin_zero = {}};
  const int connected = ::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  ASSERT_TRUE(connected == 0 || errno == EINPROGRESS);
  const Bytes segment = next_tcp();
  ASSERT_FALSE(segment.empty());
  EXPECT_EQ(peek<be16>(&segment[2]), 22);
  EXPECT_EQ(segment[13], std::byte{syn});
}

TEST_F(UserPortTest, a_restricted_guest_does_not_get_out) {
  EchoServer server;
  open({.is_restricted = true});
  meet();
  send_tcp(server.port, syn, 100, 0);
  const Bytes answer = next_tcp();
  ASSERT_FALSE(answer.empty());
  EXPECT_EQ(answer[13], std::byte{ack | rst});
}

TEST_F(UserPortTest, mistakes_do_no_harm) {
  EXPECT_FALSE(open_user({.prefix = 31}));
  open();
  queues_->send(test::ethernet(gateway, test::station_mac(1), hex("45"), ethertype_ipv4));
  queues_->send(Bytes(14));
  queues_->send(Bytes(65535));
  meet();
}

}  // namespace
}  // namespace ringway::port
