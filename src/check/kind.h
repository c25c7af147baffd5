// Kind: what a checker knows of a kind of device: its smallest request that does no harm, and the fields of
// its configuration space. Immutable; any thread. VIRTIO "Device Types".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/ring/driver_config.h"

namespace ringway::check {

// A request in a slot of shared memory: where its parts lie.
struct Request {
  std::vector<ring::Buffer> readable;
  std::vector<ring::Buffer> writable;
};

struct Kind {
  static constexpr size_t slot_bytes = 4096;

  std::string_view name;
  std::string_view request;      // in words; empty: none is known
  uint32_t ring = 0;             // that takes it
  uint64_t device_features = 0;  // that it needs, if they are offered

  // Writes a request into a slot that devices reach at `at`.
  Request (*write)(std::span<std::byte> slot, memory::GuestAddress at, uint64_t features) = nullptr;
  // Why what came back is wrong; nothing: it is not.
  std::optional<std::string> (*judge)(std::span<const std::byte> slot, uint32_t written) = nullptr;
  // Bytes that it makes the device write, by offset in the slot: for what must be marked dirty.
  size_t written_at = 0;
  size_t written_bytes = 0;

  size_t config_bytes = 0;                  // of configuration space that every such device has
  std::optional<uint32_t> read_only_field;  // offset of 8 bytes that a driver may not write
  [[nodiscard]] bool has_request() const { return write != nullptr; }
};

// The first is "any": nothing is known of it.
[[nodiscard]] std::span<const Kind> kinds();
[[nodiscard]] const Kind* find_kind(std::string_view name);

}  // namespace ringway::check
