// The configuration space of a network device. VIRTIO "Network Device / Device configuration layout". Plain
// data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ringway/base/endian.h"

namespace ringway::net {

using Mac = std::array<std::byte, 6>;

inline constexpr uint16_t VIRTIO_NET_S_LINK_UP = 1;
inline constexpr uint16_t VIRTIO_NET_S_ANNOUNCE = 2;

struct Config {
  Mac mac{};
  le16 status;
  le16 max_virtqueue_pairs;
  le16 mtu;
  le32 speed;  // Mbit/s; all ones: unknown
  uint8_t duplex = 0xff;
  uint8_t rss_max_key_size = 0;
  le16 rss_max_indirection_table_length;
  le32 supported_hash_types;
};
static_assert(sizeof(Config) == 24 && offsetof(Config, duplex) == 16);

}  // namespace ringway::net
