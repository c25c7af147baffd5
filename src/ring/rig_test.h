// For tests of this room: memory that both halves of a ring share, and the halves on it.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY 1
#endif
#include <fmt/format.h>
#include <linux/virtio_ring.h>

#include <cstring>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "ringway/memory/view.h"
#include "ringway/ring/driver.h"
#include "ringway/ring/ring.h"

namespace ringway::ring::test {

// Fails the test and stops the program where a Result that the test itself needs is an error.
template <class T>
T must(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().to_string();
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

inline UniqueFd make_memfd(uint64_t bytes) {
  UniqueFd fd(::memfd_create("ring test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  return fd;
}

// A guest's memory in one region; the driver uses the same mapping as the device.
class Guest {
 public:
  static constexpr uint64_t base = 0x10'0000;              // guest address of the first byte
  static constexpr uint64_t front_end = 0x7f00'0000'0000;  // front-end address of the first byte
  explicit Guest(uint64_t bytes)
      : region_(must(memory::Region::open({{base}, bytes, {front_end}, 0}, make_memfd(bytes)))),
        map_(must(memory::Map::of({region_}))) {}

  [[nodiscard]] const std::shared_ptr<const memory::Map>& map() const { return map_; }
  [[nodiscard]] memory::View view() const { return memory::View(map_); }
  [[nodiscard]] uint64_t size() const { return region_->layout().size; }
  [[nodiscard]] std::byte* data() const { return region_->data(); }
  [[nodiscard]] std::byte* at(uint64_t guest) const { return data() + (guest - base); }
  // Takes bytes that nobody else has, at a multiple of `alignment`; the guest address.
  uint64_t allocate(uint64_t bytes, uint64_t alignment = 64) {
    next_ = (next_ + alignment - 1) / alignment * alignment;
    const uint64_t address = base + std::exchange(next_, next_ + bytes);
    EXPECT_LE(next_, size());
    return address;
  }
  [[nodiscard]] memory::Window window(uint64_t guest, uint64_t bytes) const {
    return must(memory::Window::open(map_, memory::FrontEndAddress{front_end + (guest - base)}, bytes));
  }

 private:
  std::shared_ptr<const memory::Region> region_;
  std::shared_ptr<const memory::Map> map_;
  uint64_t next_ = 0;
};

struct Shape {
  uint32_t size = 4;
  Format format;
  RingBase base;
  uint32_t table_entries = 0;
};

// Where the parts of a ring lie, and its configuration.
class Layout {
 public:
  Layout(Guest& guest, const Shape& shape) : guest_(guest), shape_(shape) {
    const DriverLayout layout = DriverLayout::of(shape.size, shape.format, shape.table_entries);
    area = guest.allocate(layout.bytes, DriverLayout::alignment);
    desc = area + layout.desc;
    driver = area + layout.driver;
    device = area + layout.device;
  }
  [[nodiscard]] RingConfig ring_config() const {
    RingConfig config{.size = shape_.size, .format = shape_.format, .base = shape_.base};
    config.desc = guest_.window(desc, RingConfig::desc_bytes(shape_.size, shape_.format));
    config.driver = guest_.window(driver, RingConfig::driver_bytes(shape_.size, shape_.format));
    config.device = guest_.window(device, RingConfig::device_bytes(shape_.size, shape_.format));
    return config;
  }
  [[nodiscard]] DriverConfig driver_config() const {
    return {.size = shape_.size,
            .format = shape_.format,
            .base = shape_.base,
            .table_entries = shape_.table_entries,
            .area = guest_.at(area),
            .address = {area}};
  }
  uint64_t area = 0;
  uint64_t desc = 0;
  uint64_t driver = 0;
  uint64_t device = 0;

 private:
  Guest& guest_;
  Shape shape_;
};

// The device half, whatever its format.
class Device {
 public:
  explicit Device(Ring ring) : ring_(std::move(ring)) {}
  Result<Chain> try_pop() {
    return std::visit([](auto& ring) { return ring.pop(); }, ring_);
  }
  // An empty chain if there is none; a broken ring fails the test.
  Chain pop() {
    Result<Chain> chain = try_pop();
    if (chain) return std::move(*chain);
    ADD_FAILURE() << chain.error().to_string();
    return {};
  }
  Result<size_t> pop(std::span<Chain> to) {
    return std::visit([&](auto& ring) { return ring.pop(to); }, ring_);
  }
  void push_used(Chain chain, uint32_t written) {
    std::visit([&](auto& ring) { ring.push_used(std::move(chain), written); }, ring_);
  }
  void push_used(std::span<Chain> chains) {
    std::visit([&](auto& ring) { ring.push_used(chains); }, ring_);
  }
  void push_back(Chain chain) {
    std::visit([&](auto& ring) { ring.push_back(std::move(chain)); }, ring_);
  }
  void abandon(Chain chain) {
    std::visit([&](auto& ring) { ring.abandon(std::move(chain)); }, ring_);
  }
  bool publish() {
    return std::visit([](auto& ring) { return ring.publish(); }, ring_);
  }
  void disable_kicks() {
    std::visit([](auto& ring) { ring.disable_kicks(); }, ring_);
  }
  bool enable_kicks() {
    return std::visit([](auto& ring) { return ring.enable_kicks(); }, ring_);
  }
  void set_view(memory::View view) {
    std::visit([&](auto& ring) { ring.set_view(std::move(view)); }, ring_);
  }
  std::optional<memory::Translation> missing() {
    return std::visit([](auto& ring) { return ring.missing(); }, ring_);
  }
  RingBase base() {
    return std::visit([](auto& ring) { return ring.base(); }, ring_);
  }
  uint32_t in_flight() {
    return std::visit([](auto& ring) { return ring.in_flight(); }, ring_);
  }
  RingConfig stop() {
    return std::visit([](auto& ring) { return std::move(ring).stop(); }, ring_);
  }

 private:
  Ring ring_;
};

// The driver half, whatever its format.
class Front {
 public:
  explicit Front(const DriverConfig& config) : driver_(must(make_driver(config))) {}
  std::optional<uint16_t> add(std::vector<Buffer> readable, std::vector<Buffer> writable) {
    return std::visit([&](auto& driver) { return driver.add({readable, writable}); }, driver_);
  }
  bool publish() {
    return std::visit([](auto& driver) { return driver.publish(); }, driver_);
  }
  Result<std::optional<Used>> try_take_used() {
    return std::visit([](auto& driver) { return driver.take_used(); }, driver_);
  }
  std::optional<Used> take_used() {
    const auto used = try_take_used();
    if (used) return *used;
    ADD_FAILURE() << used.error().to_string();
    return std::nullopt;
  }
  void disable_calls() {
    std::visit([](auto& driver) { driver.disable_calls(); }, driver_);
  }
  bool enable_calls() {
    return std::visit([](auto& driver) { return driver.enable_calls(); }, driver_);
  }
  uint32_t in_flight() {
    return std::visit([](auto& driver) { return driver.in_flight(); }, driver_);
  }
  uint32_t free_descriptors() {
    return std::visit([](auto& driver) { return driver.free_descriptors(); }, driver_);
  }

 private:
  Driver driver_;
};

// Both halves of one ring.
struct Rig {
  Rig(Guest& guest, const Shape& shape)
      : layout(guest, shape),
        front(layout.driver_config()),
        device(must(start(layout.ring_config(), guest.view()))) {}
  Layout layout;
  Front front;
  Device device;
};

// A driver that writes whatever it likes, in the kernel's own structures, and the device half that has to
// bear it.
struct Hostile {
  Hostile(Guest& memory, const Shape& with)
      : guest(memory),
        shape(with),
        layout(memory, with),
        data(memory.allocate(4096, 4096)),
        device(begin()) {}
  [[nodiscard]] Device begin() const { return Device(must(start(layout.ring_config(), guest.view()))); }
  // A new device half on the same memory. Nothing may be in flight.
  void restart() {
    RingConfig config = device.stop();
    config.base = shape.base;
    device = Device(must(start(std::move(config), guest.view())));
  }

  // The reason for which pop() fails, which must be the same ever after; "a chain" or "nothing" if it does
  // not fail.
  std::string failure() {
    Result<Chain> first = device.try_pop();
    if (first && !*first) return "nothing";
    if (first) {
      device.abandon(*std::move(first));
      return "a chain";
    }
    const Result<Chain> second = device.try_pop();
    if (second) return "an error and then none";
    EXPECT_EQ(first.error().to_string(), second.error().to_string());
    EXPECT_EQ(first.error().fault, Fault::violation);
    return first.error().what;
  }

  Guest& guest;
  Shape shape;
  Layout layout;
  uint64_t data;  // guest address of a page for buffers and tables
  Device device;
};

struct HostileSplit : Hostile {
  explicit HostileSplit(Guest& memory, const Shape& with = {})
      : Hostile(memory, with), avail_index(with.base.avail) {
    avail()->idx = avail_index;
  }
  [[nodiscard]] vring_desc* descriptors() const {
    return reinterpret_cast<vring_desc*>(guest.at(layout.desc));
  }
  [[nodiscard]] vring_avail* avail() const { return reinterpret_cast<vring_avail*>(guest.at(layout.driver)); }
  [[nodiscard]] vring_used* used() const { return reinterpret_cast<vring_used*>(guest.at(layout.device)); }
  // An indirect table at `offset` in the page; the address must be aligned for it.
  [[nodiscard]] vring_desc* table(uint64_t offset) const {
    return reinterpret_cast<vring_desc*>(guest.at(data + offset));
  }
  void offer(std::initializer_list<uint16_t> heads) {
    for (const uint16_t head : heads) avail()->ring[avail_index++ % shape.size] = head;
    avail()->idx = avail_index;
  }
  uint16_t avail_index;
};

struct HostilePacked : Hostile {
  explicit HostilePacked(Guest& memory, const Shape& with) : Hostile(memory, with) {}
  [[nodiscard]] vring_packed_desc* descriptors() const {
    return reinterpret_cast<vring_packed_desc*>(guest.at(layout.desc));
  }
  [[nodiscard]] vring_packed_desc_event* driver_event() const {
    return reinterpret_cast<vring_packed_desc_event*>(guest.at(layout.driver));
  }
  [[nodiscard]] vring_packed_desc_event* device_event() const {
    return reinterpret_cast<vring_packed_desc_event*>(guest.at(layout.device));
  }
  [[nodiscard]] vring_packed_desc* table(uint64_t offset) const {
    return reinterpret_cast<vring_packed_desc*>(guest.at(data + offset));
  }
};

// VRING_PACKED_DESC_F_AVAIL and _USED of an available entry in the first lap, and in the second.
inline constexpr uint16_t odd_lap = 1U << VRING_PACKED_DESC_F_AVAIL;
inline constexpr uint16_t even_lap = 1U << VRING_PACKED_DESC_F_USED;

// "100+8 200+4 | 300+1": the pieces of a chain as offsets from `from` in the guest's memory and lengths,
// readable ones first.
inline std::string pieces_of(const Chain& chain, const Guest& guest, uint64_t from) {
  std::string text;
  const auto append = [&](std::span<const iovec> pieces) {
    for (const iovec& piece : pieces) {
      const auto offset = static_cast<std::byte*>(piece.iov_base) - guest.at(from);
      text += fmt::format("{}{}+{}", text.empty() || text.ends_with(' ') ? "" : " ", offset, piece.iov_len);
    }
  };
  append(chain.reader().pieces());
  text += text.empty() ? "| " : " | ";
  append(chain.writer().pieces());
  return text;
}

}  // namespace ringway::ring::test
