// Work that VIRTIO lets a sender leave to others (checksums, segmentation), done in software for receivers
// that do not take it. Works on private copies only. Any thread. VIRTIO "Network Device", "Device Operation".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "ringway/device/port/ethernet.h"
#include "ringway/device/port/frame.h"

namespace ringway::port {

// Which work a receiver takes over: a set of bits.
using Skills = uint8_t;
enum Skill : uint8_t {
  skill_checksum = 1,
  skill_tso4 = 2,
  skill_tso6 = 4,
  skill_ecn = 8,
  skill_ufo = 16,
  skill_uso4 = 32,
  skill_uso6 = 64,
};
// Of a driver, from its VIRTIO_NET_F_GUEST_* features; of a port, from the VIRTIO_NET_F_HOST_* bits that it
// takes.
[[nodiscard]] Skills driver_skills(uint64_t features);
[[nodiscard]] Skills port_skills(uint64_t takes);
// What the receiver of such a frame must have.
[[nodiscard]] Skills skills_needed(const Offload& offload);

// Copies a whole frame; the bytes may be a peer's, and are read once.
void copy_frame(const Frame& frame, std::byte* to);

// Puts in the checksum that is left to do. False: the offload does not fit the frame.
[[nodiscard]] bool complete_checksum(std::span<std::byte> frame, Offload& offload);

// Cuts a frame that is longer than its sender's network into segments that nothing is left to do for.
class Segmenter {
 public:
  static constexpr size_t max_segments = 256;
  static constexpr size_t max_headers = 256;  // bytes

  // `frame` must live as long. Nothing if it is not what its offload says, is cut too small, or is of a kind
  // that is not served: VIRTIO_NET_HDR_GSO_UDP, which would be cut into IP fragments.
  static std::optional<Segmenter> open(std::span<const std::byte> frame, const Offload& offload);

  [[nodiscard]] size_t count() const { return (payload_.size() + size_ - 1) / size_; }
  // The next segment; false after the last. It is good until the next call, while this object stays where it
  // is.
  bool next(Frame& segment);

 private:
  Segmenter() = default;
  void write_headers(std::span<const std::byte> payload, bool is_last);
  void write_network(size_t length);
  void write_tcp(bool is_last);

  IpPlace place_;
  bool is_tcp_ = false;
  size_t size_ = 0;                     // bytes of payload in each, but for the last
  size_t headers_ = 0;                  // bytes
  std::span<const std::byte> payload_;  // of the whole frame
  size_t sent_ = 0;                     // bytes of it
  uint16_t number_ = 0;                 // of segments so far
  uint16_t first_id_ = 0;
  uint32_t first_sequence_ = 0;
  std::byte flags_{};  // of TCP, in the frame
  std::array<std::byte, max_headers> head_;
  std::array<iovec, 2> pieces_;
};

enum class Finished : uint8_t {
  all,
  stopped,     // deliver() said false
  impossible,  // the offload does not fit the frame, or is of a kind that is not served
};
// Does all that is left to do on a frame, on a copy in `scratch` (room for the frame), and calls
// bool deliver(const Frame&) for what comes of it.
template <class Deliver>
Finished finish(const Frame& frame, std::byte* scratch, Deliver&& deliver) {
  copy_frame(frame, scratch);
  const std::span<std::byte> bytes(scratch, frame.length);
  if (frame.offload.gso_type != 0) {
    auto segmenter = Segmenter::open(bytes, frame.offload);
    if (!segmenter) return Finished::impossible;
    for (Frame segment; segmenter->next(segment);) {
      if (!deliver(std::as_const(segment))) return Finished::stopped;
    }
    return Finished::all;
  }
  Frame whole{.offload = frame.offload, .length = frame.length};
  if (!complete_checksum(bytes, whole.offload)) return Finished::impossible;
  const iovec piece{.iov_base = scratch, .iov_len = frame.length};
  whole.pieces = {&piece, 1};
  return deliver(std::as_const(whole)) ? Finished::all : Finished::stopped;
}

}  // namespace ringway::port
