// Driver: a virtqueue, driver half. Owned by one thread. VIRTIO "Split Virtqueues", "Packed Virtqueues".
// The device is hostile: of what it writes only used entries and event suppression are read, once, and
// checked. SplitDriver (split_driver.h) and PackedDriver (packed_driver.h) have the same functions:
//
// * std::optional<uint16_t> add(Buffers): the chain's token, less than the ring size and unique while in
//   flight; nothing: the ring is full. At least one buffer; not more than fit an empty ring or a table. The
//   device does not see it before publish()
// * uint16_t next_token(): what the next add() will return, for who keeps a buffer for each token. The ring
//   is not full
// * bool publish(): shows what was added; true: the device wants a kick
// * Result<std::optional<Used>> take_used(): the next chain that came back; error: the device broke the
//   ring, for good
// * void disable_calls()
// * bool enable_calls(): true: something is used already
// * uint32_t in_flight(): chains that were added and not taken
// * uint32_t free_descriptors(): direct chains of so many buffers still fit; indirect ones need one
// * uint32_t size()
#pragma once

#include <variant>

#include "ringway/ring/packed_driver.h"
#include "ringway/ring/split_driver.h"

namespace ringway::ring {

using Driver = std::variant<SplitDriver, PackedDriver>;

// Initialises the area. What the device is told: config.layout().
Result<Driver> make_driver(const DriverConfig& config);

}  // namespace ringway::ring
