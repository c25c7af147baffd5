// The frames that `bench net` sends: UDP or, if they are to be segmented, TCP over IPv4, each of a flow and
// numbered, so that one that arrives proves which it is and that nothing of it has changed. Immutable; any
// thread.
//
// Behind the headers: the run's number, the sequence number, the flow's number, all little-endian, and then
// pseudo-random bytes that depend on those three.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/device/net/config.h"
#include "ringway/tools/net_driver.h"

namespace ringway::tools {

inline constexpr uint32_t least_frame = 60;  // bytes, as all lengths here: without checksum
inline constexpr uint32_t most_frame = 65536;
inline constexpr uint32_t ethernet_bytes = 14;

// The lengths that frames have in turn.
class FrameSizes {
 public:
  // "64", "1500", "64k", "imix" (7 of 64, 4 of 576 and 1 of 1500 bytes). The error is a sentence.
  static std::expected<FrameSizes, std::string> parse(std::string_view text);
  static FrameSizes all(uint32_t bytes) { return FrameSizes({bytes}); }

  [[nodiscard]] uint32_t of(uint64_t sequence) const { return sizes_[sequence % sizes_.size()]; }
  [[nodiscard]] uint32_t largest() const;
  [[nodiscard]] uint32_t smallest() const;

 private:
  explicit FrameSizes(std::vector<uint32_t> sizes) : sizes_(std::move(sizes)) {}
  std::vector<uint32_t> sizes_;
};

// What a frame says of itself.
struct FrameTag {
  uint64_t run = 0;
  uint64_t sequence = 0;
  uint16_t flow = 0;
};

struct FlowOptions {
  net::Mac source{};
  net::Mac destination{};
  uint64_t run = 0;
  uint16_t flow = 0;
  FrameSizes sizes = FrameSizes::all(64);
  uint32_t mtu = 1500;     // bytes of an IP packet
  bool segmented = false;  // longer ones are TCP, and the device's to segment and to checksum
};

class Flow {
 public:
  explicit Flow(const FlowOptions& options);

  [[nodiscard]] uint32_t bytes(uint64_t sequence) const { return options_.sizes.of(sequence); }
  // Writes the frame and its virtio header, which comes first; the result is the length of both.
  uint32_t write(uint64_t sequence, std::span<std::byte> to) const;
  // Whether `frame`, without virtio header, is the one it says. It must not change meanwhile. A checksum that
  // somebody has filled in is no change.
  [[nodiscard]] bool matches(const FrameTag& tag, std::span<const std::byte> frame) const;

 private:
  [[nodiscard]] bool is_segmented(uint32_t bytes) const {
    return options_.segmented && bytes > options_.mtu + ethernet_bytes;
  }
  [[nodiscard]] port::Header header(uint32_t bytes) const;
  void write_frame(uint64_t sequence, std::span<std::byte> frame) const;
  // Returns where the payload begins.
  size_t write_headers(std::span<std::byte> frame) const;

  const FlowOptions options_;
};

// Nothing if it is not of this program.
[[nodiscard]] std::optional<FrameTag> read_tag(std::span<const std::byte> frame);
// Of a frame of ours that is only looked at quickly: the flow by its source port, at `flow_at` bytes into the
// frame.
inline constexpr size_t flow_at = 34;
[[nodiscard]] uint16_t flow_of_port(uint16_t big_endian_port);
// To everybody, so that a switch learns where `source` is.
inline constexpr uint32_t greeting_bytes = net_header_bytes + least_frame;
void write_greeting(const net::Mac& source, std::span<std::byte> to);

}  // namespace ringway::tools
