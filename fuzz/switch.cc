// The switch: hostile frames of all lengths, with hostile offloads, tags and addresses, from three stations
// of different kinds on one worker. A frame's pieces change after they have been read.
//
// Whatever is sent: every frame ends, what is delivered is a frame, what the receiver does not accept has
// been done, and the checksum of what has been done is right where it says so.

#include "ringway/device/port/switch.h"

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "fuzz/input.h"
#include "ringway/device/port/offload.h"
#include "ringway/device/port/virtio_net.h"

namespace ringway::fuzz {
namespace {

using namespace ringway::port;  // NOLINT(google-build-using-namespace)

// Mirrors what a device promises: csum_start and csum_offset lie in the frame.
struct Sent {
  uint8_t from = 0;
  uint8_t repeat = 0;
  uint8_t cut = 0;  // where the frame is cut into pieces
  uint8_t pad = 0;  // units of 256 bytes that follow
  Offload offload;
};

loop::Loop& worker() {
  static loop::Loop& loop = *loop::Loop::start({.use_io_uring = false}).value().release();
  return loop;
}

class Guest final : public Receiver {
 public:
  Guest(Switch& fabric, const StationOptions& options, uint64_t accepts, bool is_strict)
      : port_(fabric.plug(options).value()), accepts_(accepts), is_strict_(is_strict) {
    outlet_ = port_->open_outlet(worker(), 0);
    inlet_ = port_->open_inlet(worker(), 0, *this);
  }
  bool deliver(const Frame& frame) override {
    if (++delivered_ % 8 == 7) return false;
    FUZZ_CHECK(frame.length >= min_frame && frame.length <= max_frame);
    FUZZ_CHECK((skills_needed(frame.offload) & ~driver_skills(accepts_)) == 0);
    size_t bytes = frame.head.size();
    for (const iovec& piece : frame.pieces) bytes += piece.iov_len;
    FUZZ_CHECK(bytes == frame.length);
    if ((frame.offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0)
      FUZZ_CHECK(size_t{frame.offload.csum_start} + frame.offload.csum_offset + 2 <= frame.length);
    FUZZ_CHECK(!is_strict_ || (frame.offload.flags == 0 && frame.offload.gso_type == 0));
    std::vector<std::byte> copy(frame.length);
    copy_frame(frame, copy.data());
    return true;
  }
  std::span<const iovec> reserve(uint32_t) override { return {}; }
  bool commit(const Offload&, uint32_t, std::span<const std::byte>) override { return false; }
  [[nodiscard]] uint64_t accepts() const override { return accepts_; }

  Outlet& outlet() { return *outlet_; }
  Inlet& inlet() { return *inlet_; }
  void stop() { inlet_.reset(); }

 private:
  const std::unique_ptr<Port> port_;
  const uint64_t accepts_;
  const bool is_strict_;
  unsigned delivered_ = 0;
  std::unique_ptr<Outlet> outlet_;
  std::unique_ptr<Inlet> inlet_;
};

struct Own : Frame {
  std::vector<std::byte> bytes;
  std::vector<iovec> places;
  bool ended = false;
};

void fill(Own& frame, const Sent& sent, std::span<const std::byte> bytes) {
  frame.bytes.assign(bytes.begin(), bytes.end());
  frame.bytes.resize(std::clamp<size_t>(bytes.size() + size_t{sent.pad} * 256, min_frame, max_frame));
  frame.length = static_cast<uint32_t>(frame.bytes.size());
  const size_t head = std::min<size_t>(frame.length, 60);
  frame.head = std::span(frame.bytes).first(head);
  const size_t cut = std::min(head + sent.cut, frame.bytes.size());
  if (cut > head) frame.places.push_back({.iov_base = &frame.bytes[head], .iov_len = cut - head});
  if (cut < frame.bytes.size())
    frame.places.push_back({.iov_base = &frame.bytes[cut], .iov_len = frame.bytes.size() - cut});
  frame.pieces = frame.places;
  frame.offload = sent.offload;
  frame.offload.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
  if (size_t{frame.offload.csum_start} + frame.offload.csum_offset + 2 > frame.length)
    frame.offload.flags &= VIRTIO_NET_HDR_F_DATA_VALID;
  frame.done = [](Frame& ended) { static_cast<Own&>(ended).ended = true; };
}

void send(Outlet& outlet, std::vector<Frame*>& batch) {
  std::array<Outlet::Sent, Outlet::most_at_once> sent;
  if (batch.size() == 1) {
    sent[0] = outlet.send(*batch[0]);
  } else {
    outlet.send_batch(batch, sent);
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    if (sent[i] == Outlet::Sent::done) static_cast<Own*>(batch[i])->ended = true;
  }
  batch.clear();
}

void run(Input& input) {
  const auto fabric = Switch::make({.mac_limit = 64});
  const uint64_t all = receive_offloads & ~bit(VIRTIO_NET_F_GUEST_UFO);
  std::array<std::unique_ptr<Guest>, 3> guests{
      std::make_unique<Guest>(*fabric, StationOptions{.vlan = 10}, 0, true),
      std::make_unique<Guest>(*fabric, StationOptions{}, all, false),
      std::make_unique<Guest>(*fabric, StationOptions{.native = 10, .isolated = true},
                              bit(VIRTIO_NET_F_GUEST_CSUM), false)};
  std::vector<std::unique_ptr<Own>> frames;
  std::vector<Frame*> batch;
  while (!input.empty() && frames.size() < 64) {
    const auto sent = input.take<Sent>();
    Input bytes = input.part();
    frames.push_back(std::make_unique<Own>());
    Own& frame = *frames.back();
    fill(frame, sent, bytes.bytes(255));
    Guest& from = *guests[sent.from % guests.size()];
    batch.push_back(&frame);
    if ((sent.repeat & 64) != 0 && batch.size() < Outlet::most_at_once) continue;
    send(from.outlet(), batch);
    if (sent.repeat % 4 == 1) guests[sent.from / 3 % guests.size()]->inlet().resume();
    if (sent.repeat % 16 == 2) from.outlet().drain();
  }
  if (!batch.empty()) send(guests[0]->outlet(), batch);
  for (const auto& guest : guests) guest->outlet().drain();
  for (const auto& guest : guests) guest->stop();
  for (const auto& frame : frames) FUZZ_CHECK(frame->ended);
}

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringway::fuzz::Input input(data, size);
  ringway::fuzz::worker().run([&] { ringway::fuzz::run(input); });
  return 0;
}
