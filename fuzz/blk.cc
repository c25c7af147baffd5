// The block device: a hostile ring, image and requests through the real queue of blk over a small disk in
// memory, which answers at once. What reaches the disk is checked on the way.
//
// Whatever the requests say: the disk sees whole sectors inside its capacity only and no change if it is
// read-only, every chain with room for a status ends with one of the three that exist, and nothing but what
// is writable has been written.

#include "ringway/device/blk/blk.h"

#include <linux/virtio_blk.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "fuzz/input.h"
#include "fuzz/shared_image.h"
#include "ringway/device/backing/memory.h"
#include "ringway/loop/loop.h"
#include "ringway/ring/ring.h"

namespace ringway::fuzz {
namespace {

// Mirrors fuzz/seeds.py.
struct Parameters {
  uint8_t sectors = 0;    // of the disk, less one
  uint8_t flags = 0;      // below
  uint16_t features = 0;  // of VIRTIO_BLK_F_*
};
enum Flags : uint8_t { read_only = 1, big_endian = 2, thread = 4, write_through = 8 };

constexpr uint32_t entries = 16;
constexpr uint64_t desc_at = 0;
constexpr uint64_t driver_at = 0x100;
constexpr uint64_t device_at = 0x140;

// In front of a lane: what it is asked for must be possible.
class CheckedLane final : public backing::Lane {
 public:
  CheckedLane(backing::Backing& backing, std::unique_ptr<backing::Lane> next)
      : backing_(backing), next_(std::move(next)) {}
  backing::Outcome submit(backing::Request& request) override {
    const bool moves =
        request.operation == backing::Operation::read || request.operation == backing::Operation::write;
    if (request.operation != backing::Operation::flush) {
      FUZZ_CHECK(request.offset % backing::sector_size == 0 && request.length % backing::sector_size == 0);
      FUZZ_CHECK(request.length <= backing_.capacity() &&
                 request.offset <= backing_.capacity() - request.length);
      FUZZ_CHECK(request.length > 0);
      FUZZ_CHECK(request.operation == backing::Operation::read || !backing_.read_only());
    }
    if (moves) {
      uint64_t sum = 0;
      for (const iovec& piece : request.pieces) {
        FUZZ_CHECK(
            SharedImage::instance().contains(static_cast<const std::byte*>(piece.iov_base), piece.iov_len));
        sum += piece.iov_len;
      }
      FUZZ_CHECK(sum == request.length);
    }
    return next_->submit(request);
  }

 private:
  backing::Backing& backing_;
  const std::unique_ptr<backing::Lane> next_;
};

class CheckedDisk final : public backing::Backing {
 public:
  CheckedDisk(uint64_t bytes, bool read_only) : next_(backing::open_memory(bytes, read_only).value()) {
    capacity_ = next_->capacity();
    geometry_ = next_->geometry();
    geometry_.max_discard = geometry_.max_write_zeroes = geometry_.max_secure_erase =
        16 * backing::sector_size;
    read_only_ = read_only;
  }
  std::unique_ptr<backing::Lane> open_lane(loop::Loop& loop) override {
    return std::make_unique<CheckedLane>(*this, next_->open_lane(loop));
  }

 private:
  const std::unique_ptr<backing::Backing> next_;
};

loop::Loop& worker() {
  static loop::Loop& loop = *loop::Loop::start({.use_io_uring = false}).value().release();
  return loop;
}

class Run final : public engine::QueueLoop {
 public:
  explicit Run(Input& input)
      : image_(SharedImage::instance()), parameters_(input.take<Parameters>()), changes_(input.part()) {
    image_.fill(input.bytes(SharedImage::bytes));
  }

  void go() {
    ring_.emplace(std::get<ring::SplitRing>(ring::start(configure(), memory::View(image_.map())).value()));
    image_.allow_offset(device_at, ring::RingConfig::device_bytes(entries, format()));
    blk::Blk blk(
        std::make_unique<CheckedDisk>((parameters_.sectors + 1ULL) * backing::sector_size, has(read_only)),
        {.queues = 1, .serial = "fuzz"});
    blk.set_features(features());
    if (has(write_through)) {
      const std::byte off{0};
      static_cast<void>(blk.write_config(offsetof(blk::Config, writeback), std::span(&off, 1), true));
    }
    queue_ = blk.start_queue(*this);
    if (has(thread))
      image_.start_thread(changes_);
    else
      image_.script_changes(changes_);
    for (int turn = 0; turn < 4 && !broken_; ++turn) serve_available();
    FUZZ_CHECK(ring_->in_flight() == 0);
    queue_.reset();
    image_.stop_thread();
    image_.check();
  }

  void complete(ring::Chain chain, uint32_t written) override {
    const InFlight& expected = in_flight_[chain.index()];
    FUZZ_CHECK(written <= expected.writable);
    FUZZ_CHECK((written > 0) == (expected.writable > 0));
    // Another thread, or the request's own data, may have changed it since.
    if (expected.writable > 0 && !image_.changes() && !has(thread)) {
      const auto status = static_cast<uint8_t>(*expected.status);
      FUZZ_CHECK(status == VIRTIO_BLK_S_OK || status == VIRTIO_BLK_S_IOERR || status == VIRTIO_BLK_S_UNSUPP);
      FUZZ_CHECK(status == VIRTIO_BLK_S_OK || written == 1);
    }
    ring_->push_used(std::move(chain), written);
  }
  void give_back(ring::Chain chain) override { ring_->push_back(std::move(chain)); }
  void fail(ring::Chain chain, Error) override {
    ring_->abandon(std::move(chain));
    broken_ = true;
  }
  loop::Loop& worker() override { return fuzz::worker(); }
  [[nodiscard]] uint16_t index() const override { return 0; }
  [[nodiscard]] uint32_t ring_size() const override { return entries; }
  [[nodiscard]] uint64_t features() const override { return parameters_.features; }
  [[nodiscard]] bool big_endian() const override { return has(fuzz::big_endian); }

 private:
  struct InFlight {
    uint64_t writable = 0;
    const std::byte* status = nullptr;
  };

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
    for (int i = 0; i < 64; ++i) {
      auto popped = ring_->pop();
      broken_ = !popped;
      if (!popped || !*popped) break;
      note(*popped);
      queue_->process(*std::move(popped));
    }
    queue_->flush();
    if (!broken_) static_cast<void>(ring_->publish());
  }

  void note(const ring::Chain& chain) {
    const ring::Writer writer = chain.writer();
    InFlight& one = in_flight_[chain.index()];
    one = {.writable = writer.remaining()};
    for (const iovec& piece : writer.pieces()) {
      const auto* at = static_cast<const std::byte*>(piece.iov_base);
      image_.allow(at, piece.iov_len);
      one.status = at + piece.iov_len - 1;
    }
  }

  SharedImage& image_;
  const Parameters parameters_;
  Input changes_;
  std::optional<ring::SplitRing> ring_;
  std::unique_ptr<engine::Queue> queue_;
  std::array<InFlight, entries> in_flight_;
  bool broken_ = false;
};

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringway::fuzz::Input input(data, size);
  ringway::fuzz::Run(input).go();
  return 0;
}
