// The device half of a ring over a hostile image: FUZZ_PACKED says which. Chains are popped, used in any
// order, pushed back, read, written; memory snapshots change meanwhile. Built once for split and once for
// packed rings.
//
// Whatever the image says: our code writes only into the used area and what it was told to write, reads only
// inside the regions, has no more in flight than the ring has entries, and ends every call after a bounded
// number of loads.

#include "ringway/ring/ring.h"

#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>
#include <vector>

#include "fuzz/input.h"
#include "fuzz/shared_image.h"
#include "ringway/memory/view.h"

namespace ringway::fuzz {
namespace {

constexpr bool packed = FUZZ_PACKED;
using RingType = std::conditional_t<packed, ring::PackedRing, ring::SplitRing>;

// Mirrors fuzz/seeds.py.
struct Parameters {
  uint8_t size = 0;
  uint8_t format = 0;
  uint8_t memory = 0;
  uint8_t pad = 0;
  uint32_t base = 0;
  uint16_t desc = 0;  // places in the image, in units of their alignment
  uint16_t driver = 0;
  uint16_t device = 0;
  uint16_t inflight = 0;  // 0: no in-flight area
};
enum Format : uint8_t { indirect = 1, event_idx = 2, in_order = 4, big_endian = 8 };
enum Memory : uint8_t { iotlb = 1, thread = 2 };

// Sizes that matter most, and some large ones.
uint32_t ring_size(uint8_t code) {
  constexpr uint32_t large[] = {256, 512, 1024};
  if (packed) return code < 0xf0 ? code % 70 + 1 : large[code % 3];
  return code < 0xf0 ? 1U << code % 7 : large[code % 3];
}

class Run {
 public:
  explicit Run(Input& input) : image_(SharedImage::instance()), parameters_(input.take<Parameters>()) {
    changes_ = input.part();
    operations_ = input.part();
    if ((parameters_.memory & Memory::iotlb) != 0) read_iotlb(input.part());
    image_.fill(input.bytes(SharedImage::bytes));
  }

  void go() {
    auto config = configure();
    if (!config) return;
    allow_used_area(*config);
    auto started = ring::start(*std::move(config), view());
    if (!started) return;
    if ((parameters_.memory & Memory::thread) != 0)
      image_.start_thread(*changes_);
    else
      image_.script_changes(*changes_);
    ring_ = &std::get<RingType>(*started);
    image_.take_load_count();
    for (int i = 0; i < 200 && !operations_->empty(); ++i) operate(operations_->take<uint8_t>());
    finish();
    image_.stop_thread();
    image_.check();
  }

 private:
  struct Held {
    ring::Chain chain;
    uint64_t writable = 0;
  };

  void read_iotlb(Input input) {
    table_ = memory::IotlbTable::empty();
    while (!input.empty()) {
      const auto page = input.take<uint8_t>();
      const auto to = input.take<uint8_t>();
      const memory::IotlbEntry entry{.iova = {uint64_t{page} % 32 << 9},
                                     .size = uint64_t{512} << (page >> 5),
                                     .front_end = {SharedImage::front_end_base + (uint64_t{to} % 80 << 9)},
                                     .access = static_cast<memory::Access>(to % 3 + 1)};
      if (auto with = table_->with(entry)) table_ = *with;
    }
  }

  [[nodiscard]] memory::View view() const { return memory::View(image_.map(), table_); }

  Result<memory::Window> window(uint64_t offset, uint64_t length) {
    memory::Translation failure;
    const uint64_t guest = table_ ? offset : SharedImage::guest(offset % SharedImage::bytes);
    return memory::Window::open(view(), {guest}, length, memory::Access::read_write, failure);
  }

  Result<ring::RingConfig> configure() {
    ring::RingConfig config{.size = ring_size(parameters_.size),
                            .format = {.packed = packed,
                                       .indirect = (parameters_.format & Format::indirect) != 0,
                                       .event_idx = (parameters_.format & Format::event_idx) != 0,
                                       .in_order = (parameters_.format & Format::in_order) != 0,
                                       .big_endian = (parameters_.format & Format::big_endian) != 0},
                            .base = ring::RingBase::from_wire(parameters_.base, packed)};
    config.desc =
        TRY(window(parameters_.desc * 16ULL, ring::RingConfig::desc_bytes(config.size, config.format)));
    config.driver =
        TRY(window(parameters_.driver * 4ULL, ring::RingConfig::driver_bytes(config.size, config.format)));
    config.device =
        TRY(window(parameters_.device * 4ULL, ring::RingConfig::device_bytes(config.size, config.format)));
    if (parameters_.inflight != 0) {
      config.inflight =
          TRY(window(parameters_.inflight * 8ULL, ring::inflight_bytes(config.size, config.format.packed)));
    }
    return config;
  }

  void allow_used_area(const ring::RingConfig& config) {
    allow(config.device);
    if (packed) allow(config.desc);
    if (config.is_tracked()) allow(config.inflight);
    size_ = config.size;
  }
  void allow(const memory::Window& window) {
    if (image_.contains(window.data(), window.size())) return image_.allow(window.data(), window.size());
    // Stitched: somewhere in the image. The check is then only for what lies outside.
    image_.allow_offset(0, SharedImage::bytes);
  }

  void operate(uint8_t operation) {
    switch (operation % 8) {
      case 0:
        pop();
        break;
      case 1:
        for (int i = 0; i < 16 && pop(); ++i) continue;
        break;
      case 2:
        use();
        break;
      case 3:
        publish();
        break;
      case 4:
        bounded(8, [&] { static_cast<void>(ring_->enable_kicks()); });
        break;
      case 5:
        bounded(8, [&] { ring_->disable_kicks(); });
        break;
      case 6:
        push_back();
        break;
      case 7:
        ring_->set_view(view());
        break;
    }
    FUZZ_CHECK(ring_->in_flight() >= held_.size());
    FUZZ_CHECK(ring_->in_flight() <= ring_->size());
  }

  template <class Call>
  void bounded(uint64_t loads, Call&& call) {
    image_.take_load_count();
    call();
    FUZZ_CHECK(image_.take_load_count() <= loads);
  }

  bool pop() {
    if (broken_) return false;
    const uint64_t longest = std::max(size_, ring::max_chain_pieces);
    Result<ring::Chain> popped;
    // Two or four loads a descriptor, and the ring's own on top.
    bounded(ring::Chains::look_ahead * (4 * longest + 4 * size_ + 8), [&] { popped = ring_->pop(); });
    if (!popped) {
      FUZZ_CHECK(popped.error().fault == Fault::violation);
      broken_ = true;
      return false;
    }
    if (!*popped) return false;
    FUZZ_CHECK(popped->index() < size_);
    for (const Held& held : held_) FUZZ_CHECK(held.chain.index() != popped->index());
    Held held{.chain = *std::move(popped)};
    held.writable = look_at(held.chain);
    held_.push_back(std::move(held));
    touched_ = false;
    return true;
  }

  uint64_t look_at(const ring::Chain& chain) {
    const ring::Reader reader = chain.reader();
    const ring::Writer writer = chain.writer();
    const size_t most = std::max(size_, ring::max_chain_pieces);
    FUZZ_CHECK(reader.pieces().size() + writer.pieces().size() <= most);
    FUZZ_CHECK(reader.remaining() + writer.remaining() <= uint64_t{1} << 32);
    for (const ring::Cursor* cursor :
         {static_cast<const ring::Cursor*>(&reader), static_cast<const ring::Cursor*>(&writer)}) {
      for (const iovec& piece : cursor->pieces()) {
        FUZZ_CHECK(piece.iov_len > 0);
        FUZZ_CHECK(image_.contains(static_cast<const std::byte*>(piece.iov_base), piece.iov_len));
      }
    }
    return writer.remaining();
  }

  // Which of those that are held: the input says.
  Held take_one() {
    const size_t which = operations_->take<uint8_t>() % held_.size();
    Held held = std::move(held_[which]);
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(which));
    touched_ = true;
    return held;
  }

  void use() {
    if (held_.empty()) return;
    Held held = take_one();
    const auto how = operations_->take<uint8_t>();
    uint32_t written = 0;
    if (how % 2 != 0) written = serve(held.chain, how);
    ring_->push_used(std::move(held.chain), written);
  }

  // As a device does: a header, some skipping, an answer, a status.
  uint32_t serve(const ring::Chain& chain, uint8_t how) {
    ring::Reader reader = chain.reader();
    ring::Writer writer = chain.writer();
    for (const iovec& piece : writer.pieces())
      image_.allow(static_cast<std::byte*>(piece.iov_base), piece.iov_len);
    const uint64_t all = writer.remaining();
    ring::ByteSlot status;
    if (all > 0) status = writer.take_last_byte();
    std::array<std::byte, 16> header;
    const uint64_t readable = reader.remaining();
    const bool got = reader.read(header);
    FUZZ_CHECK(got == (readable >= header.size()));
    FUZZ_CHECK(reader.remaining() == readable - (got ? header.size() : 0));
    FUZZ_CHECK(reader.skip(reader.remaining() / 2));
    reader.truncate(how);
    FUZZ_CHECK(reader.remaining() <= how);
    if (got) writer.write(header);
    writer.skip(how);
    while (writer.remaining() > 0 && writer.remaining() < 64) FUZZ_CHECK(writer.write(uint8_t{0xee}));
    if (all > 0) status.write(how);
    return static_cast<uint32_t>(std::min<uint64_t>(all, UINT32_MAX));
  }

  void publish() {
    bounded(8, [&] { static_cast<void>(ring_->publish()); });
  }

  void push_back() {
    if (held_.empty() || touched_) return;
    ring_->push_back(std::move(held_.back().chain));
    held_.pop_back();
  }

  void finish() {
    while (!held_.empty()) {
      if (broken_) {
        ring_->abandon(std::move(held_.back().chain));
        held_.pop_back();
      } else {
        use();
      }
    }
    FUZZ_CHECK(ring_->in_flight() == 0);
    publish();
    const ring::RingBase base = ring_->base();
    if (packed)
      FUZZ_CHECK(base.avail < size_ && base.used < size_);
    else
      FUZZ_CHECK(base.avail == base.used || broken_ || ring_->is_tracked());
  }

  SharedImage& image_;
  const Parameters parameters_;
  std::optional<Input> changes_;
  std::optional<Input> operations_;
  std::shared_ptr<const memory::IotlbTable> table_;
  uint32_t size_ = 0;
  RingType* ring_ = nullptr;
  std::vector<Held> held_;
  bool broken_ = false;
  bool touched_ = false;  // since the last pop: nothing may be pushed back any more
};

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringway::fuzz::Input input(data, size);
  ringway::fuzz::Run(input).go();
  return 0;
}
