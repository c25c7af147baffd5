// Sends numbered frames on a network interface that loops them back, and compares what comes back with what
// went out. frames INTERFACE COUNT; prints how many came back, exit status 0 if all did, in order and whole.
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr uint16_t protocol = 0x88b5;  // IEEE 802: for experiments
constexpr size_t shortest = 60;
constexpr size_t longest = 1514;
constexpr uint32_t window = 32;  // frames under way

int fail(const char* what) {
  std::perror(what);
  return 1;
}

// Content and length follow from the number alone.
std::vector<unsigned char> frame(uint32_t number) {
  std::vector<unsigned char> bytes(shortest + number * 7919ULL % (longest - shortest + 1));
  uint32_t state = number * 2654435761U + 1;
  for (unsigned char& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<unsigned char>(state >> 24U);
  }
  std::memset(bytes.data(), 0xff, ETH_ALEN);
  std::memset(bytes.data() + ETH_ALEN, 0x02, ETH_ALEN);
  bytes[12] = protocol >> 8U;
  bytes[13] = protocol & 0xffU;
  std::memcpy(bytes.data() + ETH_HLEN, &number, sizeof number);
  return bytes;
}

bool comes_back(int socket, uint32_t number) {
  pollfd entry{.fd = socket, .events = POLLIN, .revents = 0};
  if (::poll(&entry, 1, 10000) != 1) {
    std::printf("frame %u does not come back\n", number);
    return false;
  }
  std::vector<unsigned char> got(65536);
  const ssize_t length = ::recv(socket, got.data(), got.size(), 0);
  got.resize(length > 0 ? static_cast<size_t>(length) : 0);
  if (got == frame(number)) return true;
  std::printf("frame %u comes back as another (%zd bytes)\n", number, length);
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto count = static_cast<uint32_t>(std::strtoul(argv[2], nullptr, 10));
  const int socket = ::socket(AF_PACKET, SOCK_RAW, htons(protocol));
  if (socket < 0) return fail("socket");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(argv[1]));
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return fail("bind");
  uint32_t sent = 0;
  for (uint32_t back = 0; back < count; ++back) {
    for (; sent < count && sent - back < window; ++sent) {
      const auto bytes = frame(sent);
      if (::send(socket, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
        return fail("send");
    }
    if (!comes_back(socket, back)) return 1;
  }
  std::printf("%u\n", count);
  return 0;
}
