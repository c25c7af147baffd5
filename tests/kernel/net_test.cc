// vhost-net between this driver and the network stack of the same kernel, over a tap. We are the
// host 10.9.8.2; the kernel is 10.9.8.1. VIRTIO "Network Device"; guest/run.sh.
#include <arpa/inet.h>
#include <linux/virtio_config.h>
#define class class_  // linux/virtio_net.h has a member of that name
#include <linux/virtio_net.h>
#undef class
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <thread>

#include "front_end.h"

namespace ringway::kernel_tests {
namespace {

using vhost::bit;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t header_bytes = 12;  // virtio_net_hdr_v1
constexpr uint32_t slot_of_frame = 2048;
constexpr uint32_t slot_of_large_segment = 20480;
constexpr uint16_t slots = 128;
constexpr Bytes::value_type our_mac[6] = {2, 0, 0, 0, 9, 2};
constexpr uint8_t our_ip[4] = {10, 9, 8, 2};
constexpr uint8_t kernel_ip[4] = {10, 9, 8, 1};
constexpr uint16_t port = 7000;
constexpr uint8_t tcp = 6;
constexpr uint8_t udp = 17;

uint16_t word(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
void put_word(uint8_t* at, uint16_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

uint32_t sum_of(std::span<const uint8_t> bytes, uint32_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); i += 2)
    sum += static_cast<uint32_t>(bytes[i] << 8) | (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
  return sum;
}
uint16_t folded(uint32_t sum) {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

// What packet number n carries.
Bytes payload_of(uint32_t n) {
  Bytes bytes(8 + n * 37 % 1400);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>((n * 2654435761U + i * 40503U) >> 9);
  for (int i = 0; i < 4; ++i) bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(n >> (24 - 8 * i));
  return bytes;
}
uint32_t number_of(std::span<const uint8_t> payload) {
  return static_cast<uint32_t>(word(payload.data())) << 16 | word(payload.data() + 2);
}

void configure() {
  // The tap has an address and knows where it is not: no answers but ours.
  if (std::system("ifconfig tap0 10.9.8.1 netmask 255.255.255.0 up") != 0)
    throw std::runtime_error("tap0 cannot be configured");
}

class NetFrontEnd {
 public:
  explicit NetFrontEnd(uint64_t features = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_RING_F_EVENT_IDX),
                       uint32_t slot_bytes = slot_of_frame)
      : front_end_(
            [] {
              return [&]() -> Result<std::unique_ptr<kernel::KernelDevice>> {
                auto file = TRY(kernel::VhostFile::open("/dev/vhost-net"));
                return kernel::KernelDevice::open(std::move(file),
                                                  TRY(kernel::net_endpoint(TRY(kernel::open_tap("tap0")))));
              }();
            },
            features),
        slot_bytes_(slot_bytes),
        receive_(front_end_.memory, front_end_.format, 256, slots, slot_bytes),
        transmit_(front_end_.memory, front_end_.format, 256, slots, slot_bytes) {
    configure();
    for (uint16_t slot = 0; slot < slots; ++slot) receive_.give(slot, {}, {{0, slot_bytes}});
    for (uint16_t slot = 0; slot < slots; ++slot) free_.push_back(slot);
    if (front_end_.agreed.has_feature(VIRTIO_F_ACCESS_PLATFORM)) {
      must(front_end_.session->listen(
          {.config_changed = {},
           .iotlb_fault = [this](const vhost::IotlbMessage& miss) { iommu_.ask(miss); }}));
    }
    front_end_.share();
    start();
  }

  void start(uint32_t receive_base = 0, uint32_t transmit_base = 0) {
    receive_.start(*front_end_.session, 0, front_end_.base_of_areas(), receive_base);
    transmit_.start(*front_end_.session, 1, front_end_.base_of_areas(), transmit_base);
  }
  std::pair<uint32_t, uint32_t> stop() {
    return {must(front_end_.session->stop_queue(0)), must(front_end_.session->stop_queue(1))};
  }

  // The next frame, without its header.
  std::optional<Bytes> next(std::chrono::milliseconds patience = 20s) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (true) {
      answer_misses();
      if (const auto back = receive_.take(20ms)) {
        const auto slot = receive_.slot(back->slot);
        const auto* begin = reinterpret_cast<const uint8_t*>(slot.data());
        std::memcpy(&header, begin, header_bytes);
        Bytes frame(begin + header_bytes, begin + std::max(back->written, header_bytes));
        receive_.give(back->slot, {}, {{0, slot_bytes_}});
        return frame;
      }
      if (std::chrono::steady_clock::now() > deadline) return std::nullopt;
    }
  }

  void send(const Bytes& frame, const virtio_net_hdr_v1& with = {}) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (free_.empty()) {
      answer_misses();
      if (const auto back = transmit_.take(20ms)) free_.push_back(back->slot);
      if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("no frame is taken");
    }
    const uint16_t slot = free_.back();
    free_.pop_back();
    auto* at = transmit_.slot(slot).data();
    std::memcpy(at, &with, header_bytes);
    std::memcpy(at + header_bytes, frame.data(), frame.size());
    transmit_.give(slot, {{0, header_bytes}, {header_bytes, static_cast<uint32_t>(frame.size())}}, {});
    while (const auto back = transmit_.take(0ms)) free_.push_back(back->slot);
  }

  // Answers ARP and ping as a host does; gives back frames of UDP, or of another protocol.
  std::optional<Bytes> next_udp(std::chrono::milliseconds patience = 20s) { return next_ip(udp, patience); }
  std::optional<Bytes> next_ip(uint8_t protocol, std::chrono::milliseconds patience = 20s) {
    while (auto frame = next(patience)) {
      if (frame->size() < 34) continue;
      std::copy_n(frame->begin() + 6, 6, kernel_mac_.begin());
      if (word(frame->data() + 12) == 0x0806) {
        answer_arp(*frame);
      } else if (word(frame->data() + 12) == 0x0800 && (*frame)[23] == 1) {
        answer_ping(*frame);
      } else if (word(frame->data() + 12) == 0x0800 && (*frame)[23] == protocol &&
                 std::equal(our_ip, our_ip + 4, frame->begin() + 30)) {
        return frame;
      }
    }
    return std::nullopt;
  }

  // Sends a datagram to the kernel, whose MAC has been learnt.
  void send_udp(const Bytes& payload) {
    Bytes body(8);
    put_word(&body[0], port);
    put_word(&body[2], port);
    put_word(&body[4], static_cast<uint16_t>(8 + payload.size()));
    body.insert(body.end(), payload.begin(), payload.end());
    put_word(&body[6], folded(sum_of(body, pseudo_sum(udp, body.size()))));
    send(frame_of(udp, body));
  }

  // To the kernel, in IPv4.
  [[nodiscard]] Bytes frame_of(uint8_t protocol, const Bytes& body) const {
    Bytes frame(14 + 20);
    std::copy(kernel_mac_.begin(), kernel_mac_.end(), frame.begin());
    std::copy(our_mac, our_mac + 6, frame.begin() + 6);
    put_word(&frame[12], 0x0800);
    uint8_t* ip = &frame[14];
    ip[0] = 0x45;
    put_word(ip + 2, static_cast<uint16_t>(20 + body.size()));
    ip[8] = 64;
    ip[9] = protocol;
    std::copy(our_ip, our_ip + 4, ip + 12);
    std::copy(kernel_ip, kernel_ip + 4, ip + 16);
    put_word(ip + 10, folded(sum_of({ip, 20})));
    frame.insert(frame.end(), body.begin(), body.end());
    return frame;
  }
  // What checksums of UDP and TCP begin with.
  static uint32_t pseudo_sum(uint8_t protocol, size_t bytes) {
    return sum_of(kernel_ip, sum_of(our_ip, protocol + static_cast<uint32_t>(bytes)));
  }

  void answer_misses() { pages_mapped += iommu_.answer(*front_end_.session, front_end_.memory.layout()); }
  vhost::Device& device() { return front_end_.device(); }
  FrontEnd& front_end() { return front_end_; }
  int pings = 0;
  size_t pages_mapped = 0;
  virtio_net_hdr_v1 header{};  // of the frame that came last

 private:
  void answer_arp(Bytes frame) {
    if (word(&frame[20]) != 1 || !std::equal(our_ip, our_ip + 4, frame.begin() + 38)) return;
    std::copy_n(frame.begin() + 6, 6, frame.begin());
    std::copy(our_mac, our_mac + 6, frame.begin() + 6);
    put_word(&frame[20], 2);
    std::copy_n(frame.begin() + 22, 10, frame.begin() + 32);  // the asker becomes the target
    std::copy(our_mac, our_mac + 6, frame.begin() + 22);
    std::copy(our_ip, our_ip + 4, frame.begin() + 28);
    send(frame);
  }

  void answer_ping(Bytes frame) {
    if (frame[34] != 8 || !std::equal(our_ip, our_ip + 4, frame.begin() + 30)) return;
    std::swap_ranges(frame.begin(), frame.begin() + 6, frame.begin() + 6);
    std::swap_ranges(frame.begin() + 26, frame.begin() + 30, frame.begin() + 30);
    frame[34] = 0;
    put_word(&frame[36], 0);
    put_word(&frame[36], folded(sum_of(std::span(frame).subspan(34, word(&frame[16]) - 20U))));
    send(frame);
    ++pings;
  }

  FrontEnd front_end_;
  const uint32_t slot_bytes_;
  Queue receive_;
  Queue transmit_;
  std::vector<uint16_t> free_;
  std::array<uint8_t, 6> kernel_mac_{};
  Iommu iommu_;
};

// A command of the guest's own, while we go on.
class Command {
 public:
  explicit Command(const char* line) : thread_([this, line] { status_ = std::system(line); }) {}
  ~Command() { thread_.join(); }
  [[nodiscard]] bool ended() const { return status_ >= 0; }
  [[nodiscard]] int status() const { return status_; }

 private:
  std::atomic<int> status_ = -1;
  std::thread thread_;
};

int ping_from_kernel(NetFrontEnd& net, const char* line) {
  const Command ping(line);
  while (!ping.ended()) (void)net.next_udp(100ms);
  return ping.status();
}

class UdpSocket {
 public:
  UdpSocket() : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in here = address(kernel_ip);
    if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0)
      throw std::runtime_error("cannot bind the kernel's address");
  }
  void send(const Bytes& payload) const {
    const sockaddr_in there = address(our_ip);
    const ssize_t sent = ::sendto(fd_.get(), payload.data(), payload.size(), 0,
                                  reinterpret_cast<const sockaddr*>(&there), sizeof there);
    if (sent != static_cast<ssize_t>(payload.size())) throw std::runtime_error("a datagram was not sent");
  }
  // No bytes: none has come.
  [[nodiscard]] Bytes receive() const {
    pollfd entry{.fd = fd_.get(), .events = POLLIN};
    ::poll(&entry, 1, 20);
    Bytes bytes(2048);
    const ssize_t got = ::recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return bytes;
  }

  static sockaddr_in address(const uint8_t* ip) {
    sockaddr_in at{.sin_family = AF_INET, .sin_port = htons(port)};
    std::memcpy(&at.sin_addr, ip, 4);
    return at;
  }

 private:
  const UniqueFd fd_;
};

constexpr uint32_t flood = 20'000;
constexpr uint32_t in_flight =
    64;  // fewer than the tap and the socket hold, so that none is lost for want of room

// From the kernel's stack to us, `count` datagrams that must all come, whole and in order.
void flood_to_us(NetFrontEnd& net, uint32_t count) {
  const UdpSocket kernel;
  uint32_t sent = 0;
  for (uint32_t got = 0; got < count; ++got) {
    while (sent < count && sent - got < in_flight) kernel.send(payload_of(sent++));
    const auto frame = net.next_udp();
    ASSERT_TRUE(frame) << "after " << got;
    const std::span<const uint8_t> payload = std::span(*frame).subspan(42, word(frame->data() + 38) - 8U);
    ASSERT_EQ(number_of(payload), got);
    ASSERT_TRUE(std::ranges::equal(payload, payload_of(got))) << "datagram " << got << " is corrupted";
  }
}

void flood_to_kernel(NetFrontEnd& net, uint32_t count) {
  const UdpSocket kernel;
  uint32_t sent = 0;
  for (uint32_t got = 0; got < count; ++got) {
    while (sent < count && sent - got < in_flight) net.send_udp(payload_of(sent++));
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    Bytes payload;
    while ((payload = kernel.receive()).empty() && std::chrono::steady_clock::now() < deadline)
      net.answer_misses();
    ASSERT_GE(payload.size(), 8U) << "after " << got;
    ASSERT_EQ(number_of(payload), got);
    ASSERT_EQ(payload, payload_of(got)) << "datagram " << got << " is corrupted";
  }
}

TEST(Net, TheKernelPingsUs) {
  NetFrontEnd net;
  EXPECT_EQ(ping_from_kernel(net, "ping -c 5 -W 10 10.9.8.2 >/dev/null"), 0);
  EXPECT_EQ(net.pings, 5);
}

TEST(Net, AFloodArrivesWholeInBothDirections) {
  NetFrontEnd net;
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  flood_to_us(net, flood);
  flood_to_kernel(net, flood);
}

TEST(Net, AStoppedDeviceGoesOnWhereItWas) {
  NetFrontEnd net;
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  flood_to_us(net, 100);
  flood_to_kernel(net, 100);
  const auto [receive_base, transmit_base] = net.stop();
  EXPECT_GE(receive_base, 100U);
  EXPECT_GE(transmit_base, 100U);
  net.start(receive_base, transmit_base);
  flood_to_us(net, 100);
  flood_to_kernel(net, 100);
}

TEST(Net, MemoryMayBeSharedAnewUnderTheRings) {
  NetFrontEnd net;
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  for (int i = 0; i < 5; ++i) {
    vhost::SetMemTable table;
    table.regions.push_back(
        {.layout = net.front_end().memory.layout(), .fd = must(net.front_end().memory.file())});
    must(vhost::call(net.device(), std::move(table)));
    flood_to_us(net, 50);
    flood_to_kernel(net, 50);
  }
}

TEST(Net, BehindAnIommuTheKernelAsksForWhatItNeeds) {
  NetFrontEnd net(bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM));
  ASSERT_TRUE(net.front_end().agreed.has_feature(VIRTIO_F_ACCESS_PLATFORM));
  ASSERT_EQ(ping_from_kernel(net, "ping -c 2 -W 10 10.9.8.2 >/dev/null"), 0);
  flood_to_us(net, 500);
  flood_to_kernel(net, 500);
  EXPECT_GT(net.pages_mapped, 10U);
  std::printf("%zu pages were asked for\n", net.pages_mapped);
}

// ---- offloads of the tap

constexpr uint64_t modern = bit(VIRTIO_F_VERSION_1);
constexpr size_t checksum_of_udp = 6;
constexpr size_t checksum_of_tcp = 16;
enum TcpFlag : uint8_t { syn = 2, rst = 4, psh = 8, ack = 16 };

uint32_t long_word(const uint8_t* at) { return static_cast<uint32_t>(word(at)) << 16 | word(at + 2); }
void put_long_word(uint8_t* at, uint32_t value) {
  put_word(at, static_cast<uint16_t>(value >> 16));
  put_word(at + 2, static_cast<uint16_t>(value));
}

Bytes segment(uint8_t flags, uint16_t to, uint32_t number, uint32_t acknowledged, size_t payload) {
  Bytes body(20 + payload);
  put_word(&body[0], port);
  put_word(&body[2], to);
  put_long_word(&body[4], number);
  put_long_word(&body[8], acknowledged);
  body[12] = 5 << 4;
  body[13] = flags;
  put_word(&body[14], 65535);
  return body;
}

// The sum that a driver leaves unfinished is that of the pseudo header.
void leave_checksum(Bytes& body, uint8_t protocol, size_t at) {
  put_word(&body[at], static_cast<uint16_t>(~folded(NetFrontEnd::pseudo_sum(protocol, body.size()))));
}

virtio_net_hdr_v1 unfinished(size_t checksum_at) {
  virtio_net_hdr_v1 header{};
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csum_start = 34;
  header.csum_offset = static_cast<uint16_t>(checksum_at);
  return header;
}

TEST(Net, AnUnfinishedChecksumIsTakenFromUs) {
  NetFrontEnd net(modern | bit(VIRTIO_NET_F_CSUM));
  ASSERT_TRUE(net.front_end().agreed.has_feature(VIRTIO_NET_F_CSUM));
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  const UdpSocket kernel;
  Bytes body(8);
  put_word(&body[0], port);
  put_word(&body[2], port);
  const Bytes payload = payload_of(77);
  put_word(&body[4], static_cast<uint16_t>(8 + payload.size()));
  body.insert(body.end(), payload.begin(), payload.end());
  leave_checksum(body, udp, checksum_of_udp);
  net.send(net.frame_of(udp, body));  // nobody says that it is unfinished: it is wrong, and dropped
  net.send(net.frame_of(udp, body), unfinished(checksum_of_udp));
  Bytes got;
  for (int tries = 0; got.empty() && tries < 500; ++tries) got = kernel.receive();
  EXPECT_EQ(got, payload);
  EXPECT_TRUE(kernel.receive().empty());
}

TEST(Net, TheKernelLeavesItsChecksumToUsIfWeTakeIt) {
  for (const bool takes : {false, true}) {
    NetFrontEnd net(takes ? modern | bit(VIRTIO_NET_F_GUEST_CSUM) : modern);
    ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
    const UdpSocket kernel;
    kernel.send(payload_of(5));
    ASSERT_TRUE(net.next_udp());
    EXPECT_EQ(net.header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, takes ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
  }
}

// There is no such connection: the kernel acknowledges all that it resets.
TEST(Net, ALargeSegmentOfOursArrivesInOnePiece) {
  NetFrontEnd net(modern | bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4), slot_of_large_segment);
  ASSERT_TRUE(net.front_end().agreed.has_feature(VIRTIO_NET_F_HOST_TSO4));
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  constexpr uint32_t first = 1000;
  constexpr uint32_t bytes = 10'000;
  Bytes body = segment(psh, 9, first, 0, bytes);
  leave_checksum(body, tcp, checksum_of_tcp);
  virtio_net_hdr_v1 header = unfinished(checksum_of_tcp);
  header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
  header.gso_size = 1448;
  header.hdr_len = 14 + 20 + 20;
  net.send(net.frame_of(tcp, body), header);
  const auto answer = net.next_ip(tcp);
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)[34 + 13], rst | ack);
  EXPECT_EQ(long_word(&(*answer)[34 + 8]), first + bytes);
}

TEST(Net, TheKernelSendsLargeSegmentsIfWeTakeThem) {
  NetFrontEnd net(modern | bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4),
                  slot_of_large_segment);
  ASSERT_TRUE(net.front_end().agreed.has_feature(VIRTIO_NET_F_GUEST_TSO4));
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  const UniqueFd talker(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr_in there = UdpSocket::address(our_ip);
  // It does not wait for the answer, which is ours.
  ASSERT_EQ(::connect(talker.get(), reinterpret_cast<const sockaddr*>(&there), sizeof there), -1);
  ASSERT_EQ(errno, EINPROGRESS);
  const auto opening = net.next_ip(tcp);
  ASSERT_TRUE(opening);
  ASSERT_EQ((*opening)[34 + 13], syn);
  Bytes body = segment(syn | ack, word(&(*opening)[34]), 1, long_word(&(*opening)[34 + 4]) + 1, 4);
  body[12] = 6 << 4;  // with an option: segments of 1460 bytes
  body[20] = 2;
  body[21] = 4;
  put_word(&body[22], 1460);
  put_word(&body[16], folded(sum_of(body, NetFrontEnd::pseudo_sum(tcp, body.size()))));
  net.send(net.frame_of(tcp, body));
  ASSERT_TRUE(net.next_ip(tcp));  // what we said is acknowledged
  const Bytes much(60'000);
  ASSERT_GT(::send(talker.get(), much.data(), much.size(), MSG_NOSIGNAL), 14'000);
  const auto frame = net.next_ip(tcp);
  ASSERT_TRUE(frame);
  EXPECT_GT(frame->size(), 1514U);
  EXPECT_EQ(net.header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
  EXPECT_EQ(net.header.gso_size, 1460);
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(talker.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

// The pages of every buffer that was written have their bit, and the device needs no restart for it.
TEST(Net, TheLogHasWhatTheKernelWrites) {
  NetFrontEnd net;
  ASSERT_EQ(ping_from_kernel(net, "ping -c 1 -W 10 10.9.8.2 >/dev/null"), 0);
  const memory::RegionLayout layout = net.front_end().memory.layout();
  const uint64_t log_bytes = (layout.guest.value + layout.size) / 4096 / 8;
  const UniqueFd file(::memfd_create("log", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(log_bytes)), 0);
  const Mapping log = must(Mapping::of_file(file.get(), log_bytes, 0));
  must(vhost::call(net.device(), vhost::SetLogBase{.size = log_bytes, .fd = must(file.duplicate())}));
  const uint64_t features = net.front_end().agreed.features | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
  must(vhost::call(net.device(), vhost::SetFeatures{features | bit(VHOST_F_LOG_ALL)}));
  flood_to_us(net, 4 * slots);
  size_t dirty = 0;
  for (const std::byte byte : log.bytes())
    dirty += static_cast<size_t>(std::popcount(static_cast<uint8_t>(byte)));
  EXPECT_GE(dirty, size_t{slots} * slot_of_frame / 4096);
  must(vhost::call(net.device(), vhost::SetFeatures{features}));
  flood_to_us(net, 10);
}

}  // namespace
}  // namespace ringway::kernel_tests
