#include "ringway/device/net/announcement.h"

#include <algorithm>

#include "ringway/base/endian.h"

namespace ringway::net {
namespace {

using be16 = Fixed<uint16_t, std::endian::big>;

struct Rarp {
  Mac to;
  Mac from;
  be16 type = 0x8035;
  be16 hardware = 1;       // Ethernet
  be16 protocol = 0x0800;  // IPv4
  uint8_t hardware_length = 6;
  uint8_t protocol_length = 4;
  be16 operation = 3;  // request reverse
  Mac sender;
  std::array<std::byte, 4> sender_ip{};
  Mac target;
  std::array<std::byte, 4> target_ip{};
};
static_assert(sizeof(Rarp) == 42);

}  // namespace

Announcement::Announcement() {
  length = bytes;
  pieces = {&piece_, 1};
  done = [](port::Frame& frame) { static_cast<Announcement&>(frame).free(); };
}

bool Announcement::fill(const Mac& mac) {
  if (taken_.exchange(true, std::memory_order_acquire)) return false;
  Rarp rarp;
  rarp.to.fill(std::byte{0xff});
  rarp.from = rarp.sender = rarp.target = mac;
  std::ranges::copy(std::as_bytes(std::span(&rarp, 1)), frame_.begin());
  return true;
}

}  // namespace ringway::net
