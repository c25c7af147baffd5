// The network device: a hostile ring, image and headers through a real transmit, receive or control queue,
// over a port that checks what reaches it and delivers what the input says.
//
// Whatever the driver does: a frame that leaves lies in the driver's memory and has a length that frames
// have, the work left on it was negotiated and lies within it, every chain ends, and nothing but what is
// writable has been written.

#include "ringway/device/net/net.h"

#include <linux/virtio_config.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "fuzz/input.h"
#include "fuzz/shared_image.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/loop/loop.h"
#include "ringway/ring/ring.h"

namespace ringway::fuzz {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification

// Mirrors fuzz/seeds.py.
struct Parameters {
  uint8_t role = 0;   // below
  uint8_t flags = 0;  // below
  uint8_t head = 0;   // bytes that the port wants, modulo what it may
  uint8_t unused = 0;
  uint32_t low_features = 0;
  uint32_t high_features = 0;
};
enum Role : uint8_t { transmits, receives, controls, roles };
enum Flags : uint8_t { big_endian = 1, thread = 2, holds = 4 };

constexpr uint32_t entries = 16;
constexpr uint64_t desc_at = 0;
constexpr uint64_t driver_at = 0x100;
constexpr uint64_t device_at = 0x140;
constexpr uint16_t pairs = 4;

class CheckedPort final : public Port {
 public:
  CheckedPort(uint64_t features, uint32_t head, bool holds) : features_(features), holds_(holds) {
    abilities_.head = head;
  }
  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  Result<> wish(const Wishes& wishes) override {
    FUZZ_CHECK((wishes.offloads & ~(features_ & receive_offloads)) == 0);
    FUZZ_CHECK(wishes.pairs >= 1 && wishes.pairs <= pairs);
    return {};
  }
  std::unique_ptr<Outlet> open_outlet(loop::Loop&, uint16_t) override { return std::make_unique<Out>(*this); }
  std::unique_ptr<Inlet> open_inlet(loop::Loop&, uint16_t, Receiver& receiver) override {
    receiver_ = &receiver;
    return std::make_unique<In>();
  }

  // What the input says arrives.
  void deliver(Input& script) {
    std::vector<std::byte> bytes(script.take<uint16_t>() + size_t{min_frame}, std::byte{0x5a});
    const auto how = script.take<uint8_t>();
    const Offload offload{.flags = static_cast<uint8_t>(how & 3U),
                          .gso_type = static_cast<uint8_t>(how >> 2U & 1U)};
    if ((how & 8U) == 0) {
      const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
      const Frame frame{
          .offload = offload, .length = static_cast<uint32_t>(bytes.size()), .pieces = {&piece, 1}};
      const std::array batch{&frame, &frame, &frame, &frame};
      const size_t count = how >> 4U & 3U;
      if (count == 0) {
        receiver_->deliver(frame);
      } else {
        FUZZ_CHECK(receiver_->deliver_batch(std::span(batch).first(count + 1)) <= count + 1);
      }
      return;
    }
    size_t done = 0;
    for (const iovec& place : receiver_->reserve(script.take<uint16_t>())) {
      const size_t here = std::min(bytes.size() - done, place.iov_len);
      std::memcpy(place.iov_base, bytes.data() + done, here);
      done += here;
    }
    receiver_->commit(offload, static_cast<uint32_t>(done), std::span(bytes).subspan(done));
  }

 private:
  struct In : Inlet {
    void resume() override {}
  };
  struct Out : Outlet {
    explicit Out(CheckedPort& port) : port_(port) {}
    Sent send(Frame& frame) override {
      port_.check(frame);
      if (!port_.holds_) return Sent::done;
      held_.push_back(&frame);
      return Sent::later;
    }
    void flush() override { drain(); }
    void drain() override {
      while (!held_.empty()) {
        Frame& frame = *held_.back();
        held_.pop_back();
        frame.done(frame);
      }
    }
    CheckedPort& port_;
    std::vector<Frame*> held_;
  };

  void check(const Frame& frame) const {
    FUZZ_CHECK(frame.length >= min_frame && frame.length <= max_frame);
    FUZZ_CHECK(frame.head.size() == std::min(abilities_.head, frame.length));
    uint64_t sum = frame.head.size();
    for (const iovec& piece : frame.pieces) {
      FUZZ_CHECK(
          SharedImage::instance().contains(static_cast<const std::byte*>(piece.iov_base), piece.iov_len));
      sum += piece.iov_len;
    }
    FUZZ_CHECK(sum == frame.length);
    const Offload& offload = frame.offload;
    FUZZ_CHECK((offload.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0 && offload.hdr_len <= frame.length);
    if (offload.flags != 0) {
      FUZZ_CHECK((features_ & bit(VIRTIO_NET_F_CSUM)) != 0);
      FUZZ_CHECK(uint32_t{offload.csum_start} + offload.csum_offset + 2 <= frame.length);
    }
    FUZZ_CHECK(offload.gso_type == 0 || offload.gso_size > 0);
    FUZZ_CHECK(offload.gso_type == 0 || (features_ & transmit_offloads & ~bit(VIRTIO_NET_F_CSUM)) != 0);
  }

  const uint64_t features_;
  const bool holds_;
  Abilities abilities_{.takes = transmit_offloads, .gives = receive_offloads, .pairs = pairs};
  Receiver* receiver_ = nullptr;
};

loop::Loop& worker() {
  static loop::Loop& loop = *loop::Loop::start({.use_io_uring = false}).value().release();
  return loop;
}

class Run final : public engine::QueueLoop {
 public:
  explicit Run(Input& input)
      : image_(SharedImage::instance()),
        parameters_(input.take<Parameters>()),
        changes_(input.part()),
        script_(input.part()) {
    image_.fill(input.bytes(SharedImage::bytes));
  }

  void go() {
    ring_.emplace(std::get<ring::SplitRing>(ring::start(configure(), memory::View(image_.map())).value()));
    image_.allow_offset(device_at, ring::RingConfig::device_bytes(entries, format()));
    auto port = std::make_unique<CheckedPort>(features(), parameters_.head % (max_head + 1), has(holds));
    port_ = port.get();
    net::Net net(std::move(port), {.pairs = pairs, .mac = {}});
    net.set_features(features());
    queue_ = net.start_queue(*this);
    if (has(thread))
      image_.start_thread(changes_);
    else
      image_.script_changes(changes_);
    for (int turn = 0; turn < 4; ++turn) {
      serve_available();
      while (role() == receives && !script_.empty()) port_->deliver(script_);
    }
    queue_->drain();
    FUZZ_CHECK(ring_->in_flight() == 0);
    queue_.reset();
    image_.stop_thread();
    image_.check();
  }

  void complete(ring::Chain chain, uint32_t written) override {
    FUZZ_CHECK(written <= writable_[chain.index()]);
    FUZZ_CHECK(role() != transmits || written == 0);
    ring_->push_used(std::move(chain), written);
  }
  void give_back(ring::Chain chain) override { ring_->push_back(std::move(chain)); }
  void fail(ring::Chain chain, Error) override { ring_->abandon(std::move(chain)); }
  loop::Loop& worker() override { return fuzz::worker(); }
  [[nodiscard]] uint16_t index() const override {
    const bool many = (features() & (bit(VIRTIO_NET_F_MQ) | bit(VIRTIO_NET_F_RSS))) != 0;
    if (role() == controls) return many ? 2 * pairs : 2;
    return role() == transmits ? 1 : 0;
  }
  [[nodiscard]] uint32_t ring_size() const override { return entries; }
  [[nodiscard]] uint64_t features() const override {
    const uint64_t chosen = uint64_t{parameters_.high_features} << 32U | parameters_.low_features;
    return role() == controls ? chosen | bit(VIRTIO_NET_F_CTRL_VQ) : chosen;
  }
  [[nodiscard]] bool big_endian() const override { return has(fuzz::big_endian); }

 private:
  [[nodiscard]] Role role() const { return static_cast<Role>(parameters_.role % roles); }
  [[nodiscard]] bool has(Flags flag) const { return (parameters_.flags & flag) != 0; }
  [[nodiscard]] ring::Format format() const {
    return {.indirect = true, .big_endian = has(fuzz::big_endian)};
  }

  [[nodiscard]] ring::RingConfig configure() const {
    const auto window = [this](uint64_t offset, uint64_t length) {
      const memory::FrontEndAddress address{SharedImage::front_end_base + offset};
      return memory::Window::open(image_.map(), address, length).value();
    };
    ring::RingConfig config{.size = entries, .format = format()};
    config.desc = window(desc_at, ring::RingConfig::desc_bytes(config.size, config.format));
    config.driver = window(driver_at, ring::RingConfig::driver_bytes(config.size, config.format));
    config.device = window(device_at, ring::RingConfig::device_bytes(config.size, config.format));
    return config;
  }

  void serve_available() {
    take_available();
    queue_->flush();
    if (!is_broken_) static_cast<void>(ring_->publish());
  }
  bool take_available() override {
    int taken = 0;
    for (; taken < 64 && queue_->appetite() > 0; ++taken) {
      auto popped = ring_->pop();
      is_broken_ = !popped;
      if (!popped || !*popped) break;
      const ring::Writer writer = popped->writer();
      writable_[popped->index()] = writer.remaining();
      for (const iovec& piece : writer.pieces()) {
        image_.allow(static_cast<const std::byte*>(piece.iov_base), piece.iov_len);
      }
      queue_->process(*std::move(popped));
    }
    return taken > 0;
  }

  SharedImage& image_;
  const Parameters parameters_;
  Input changes_;
  Input script_;
  std::optional<ring::SplitRing> ring_;
  bool is_broken_ = false;
  CheckedPort* port_ = nullptr;
  std::unique_ptr<engine::Queue> queue_;
  std::array<uint64_t, entries> writable_{};
};

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringway::fuzz::Input input(data, size);
  ringway::fuzz::Run(input).go();
  return 0;
}
