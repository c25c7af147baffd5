// The driver half of a ring against a hostile device: FUZZ_PACKED says which. Chains are added and taken;
// whatever the device can write, which is all of the driver's area, it writes, at any moment.
//
// Whatever it says: a chain comes back only if it is in flight and only once, with no more written than it
// has room for; a broken ring stays broken; our code writes into its area only, and ends every call after a
// bounded number of loads.

#include "ringway/ring/driver.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <type_traits>
#include <vector>

#include "fuzz/input.h"
#include "fuzz/shared_image.h"

namespace ringway::fuzz {
namespace {

constexpr bool packed = FUZZ_PACKED;
using DriverType = std::conditional_t<packed, ring::PackedDriver, ring::SplitDriver>;

constexpr uint64_t area_at = 0x30;  // in the image: aligned as a driver's area must be
constexpr uint64_t area_address = 0x10000;

// Mirrors fuzz/seeds.py.
struct Parameters {
  uint8_t size = 0;
  uint8_t format = 0;
  uint8_t table_entries = 0;
  uint8_t flags = 0;  // 1: the changes are made by a second thread
  uint32_t base = 0;
};
enum Format : uint8_t { indirect = 1, event_idx = 2, in_order = 4, big_endian = 8 };

class Run {
 public:
  explicit Run(Input& input)
      : image_(SharedImage::instance()),
        parameters_(input.take<Parameters>()),
        changes_(input.part()),
        operations_(input) {
    image_.fill({});
  }

  void go() {
    const ring::DriverConfig config = configure();
    auto made = ring::make_driver(config);
    if (!made) return;
    driver_ = &std::get<DriverType>(*made);
    area_bytes_ = config.layout().bytes;
    image_.allow_offset(area_at, area_bytes_);
    const bool thread = (parameters_.flags & 1) != 0;
    if (thread)
      image_.start_thread(changes_);
    else
      image_.script_changes(changes_);
    for (int i = 0; i < 500 && !operations_.empty(); ++i) operate(operations_.take<uint8_t>());
    image_.stop_thread();
    image_.check();
  }

 private:
  [[nodiscard]] ring::DriverConfig configure() const {
    ring::DriverConfig config{.size = packed ? parameters_.size % 64 + 1U : 1U << parameters_.size % 7,
                              .format = {.packed = packed,
                                         .indirect = (parameters_.format & Format::indirect) != 0,
                                         .event_idx = (parameters_.format & Format::event_idx) != 0,
                                         .in_order = (parameters_.format & Format::in_order) != 0,
                                         .big_endian = (parameters_.format & Format::big_endian) != 0},
                              .base = ring::RingBase::from_wire(parameters_.base, packed)};
    if (config.format.indirect) config.table_entries = parameters_.table_entries % 9;
    config.area = image_.map()->regions()[0]->data() + area_at;
    config.address = {area_address};
    return config;
  }

  void operate(uint8_t operation) {
    switch (operation % 8) {
      case 0:
        add();
        break;
      case 1:
        bounded(8, [&] { static_cast<void>(driver_->publish()); });
        break;
      case 2:
        take();
        break;
      case 3:
        for (int i = 0; i < 64 && take(); ++i) continue;
        break;
      case 4:
        bounded(8, [&] { static_cast<void>(driver_->enable_calls()); });
        break;
      case 5:
        bounded(8, [&] { driver_->disable_calls(); });
        break;
      default:
        write();
        break;
    }
    FUZZ_CHECK(driver_->in_flight() == in_flight_.size());
    FUZZ_CHECK(driver_->in_flight() <= driver_->size());
    FUZZ_CHECK(driver_->free_descriptors() <= driver_->size());
  }

  template <class Call>
  void bounded(uint64_t loads, Call&& call) {
    image_.take_load_count();
    call();
    FUZZ_CHECK(image_.take_load_count() <= loads);
  }

  void add() {
    const auto shape = operations_.take<uint8_t>();
    std::array<ring::Buffer, 16> readable;
    std::array<ring::Buffer, 16> writable;
    size_t readable_count = shape % 16;
    size_t writable_count = shape / 16;
    if (readable_count + writable_count == 0) writable_count = 1;
    const uint32_t most = std::max(driver_->size(), uint32_t{parameters_.table_entries} % 9);
    if (readable_count + writable_count > std::min(driver_->size(), most)) {
      readable_count = 0;
      writable_count = 1;
    }
    uint64_t room = 0;
    for (size_t i = 0; i < readable_count; ++i) readable[i] = {.address = {0x4000}, .length = 16};
    for (size_t i = 0; i < writable_count; ++i) {
      writable[i] = {.address = {0x5000}, .length = shape * 8U};
      room += shape * 8U;
    }
    std::optional<uint16_t> token;
    bounded(0, [&] {
      token = driver_->add({.readable = std::span(readable).first(readable_count),
                            .writable = std::span(writable).first(writable_count)});
    });
    if (!token) return;
    FUZZ_CHECK(*token < driver_->size());
    FUZZ_CHECK(in_flight_.emplace(*token, room).second);
  }

  bool take() {
    std::optional<Result<std::optional<ring::Used>>> taken;
    bounded(8ULL + 4ULL * driver_->size(), [&] { taken = driver_->take_used(); });
    const auto& used = *taken;
    FUZZ_CHECK(!broken_ || !used);
    broken_ = !used;
    if (!used || !*used) return false;
    const auto known = in_flight_.find((*used)->token);
    FUZZ_CHECK(known != in_flight_.end());
    FUZZ_CHECK((*used)->written <= known->second);
    in_flight_.erase(known);
    return true;
  }

  // The device writes into the area.
  void write() {
    const uint64_t offset = operations_.take<uint16_t>() % area_bytes_;
    std::byte* const area = image_.map()->regions()[0]->data() + area_at;
    const auto bytes = operations_.bytes(operations_.take<uint8_t>() % 32);
    std::copy_n(bytes.data(), std::min<uint64_t>(bytes.size(), area_bytes_ - offset), area + offset);
  }

  SharedImage& image_;
  const Parameters parameters_;
  Input changes_;
  Input& operations_;
  DriverType* driver_ = nullptr;
  uint64_t area_bytes_ = 0;
  std::map<uint16_t, uint64_t> in_flight_;  // token -> room for what is written
  bool broken_ = false;
};

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringway::fuzz::Input input(data, size);
  ringway::fuzz::Run(input).go();
  return 0;
}
