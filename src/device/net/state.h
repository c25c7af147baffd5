// State: what a driver has set in a network device, as the bytes that another back-end needs to go on in its
// place (vhost-user "Migrating back-end state"). Plain data; any thread.
//
// Little-endian: the head below, two tables of addresses of 6 bytes each, then if the driver has chosen how
// frames are spread its indirection table, of u16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/device/net/config.h"
#include "ringway/device/net/rules.h"

namespace ringway::net {

struct State {
  uint64_t features = 0;  // that the driver has agreed on
  Mac mac{};
  uint16_t mtu = 0;
  bool announce = false;  // the driver was asked to announce itself, and has not said that it did
  Rules rules;            // filter.own and filter.by_vlan are told by mac and features

  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  // Refused if it could not have come about on a device that offers `features` and has so many pairs of
  // queues.
  static Result<State> from_bytes(std::span<const std::byte> bytes, uint64_t features, uint16_t pairs);
};

}  // namespace ringway::net
