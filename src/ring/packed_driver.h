// PackedDriver: a packed virtqueue, driver half. Owned by one thread. The functions are described in
// driver.h.
#pragma once

#include <optional>
#include <vector>

#include "ringway/ring/driver_config.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {

class PackedDriver {
 public:
  // `config` has been validated and its area is zeroed.
  explicit PackedDriver(const DriverConfig& config);

  std::optional<uint16_t> add(const Buffers& buffers) {
    const uint32_t needed = descriptors(buffers);
    if (needed > free_) return std::nullopt;
    return add(buffers, needed);
  }
  [[nodiscard]] uint16_t next_token() const { return free_ids_.back(); }
  [[nodiscard]] bool publish();
  Result<std::optional<Used>> take_used();
  void disable_calls();
  [[nodiscard]] bool enable_calls();

  [[nodiscard]] uint32_t in_flight() const { return static_cast<uint32_t>(tokens_.in_flight()); }
  [[nodiscard]] uint32_t free_descriptors() const { return free_; }
  [[nodiscard]] uint32_t size() const { return size_; }

 private:
  [[nodiscard]] bool takes_table(const Buffers& buffers) const {
    return buffers.count() > 1 && buffers.count() <= table_entries_;
  }
  [[nodiscard]] uint32_t descriptors(const Buffers& buffers) const {
    return takes_table(buffers) ? 1 : buffers.count();
  }
  uint16_t add(const Buffers& buffers, uint32_t needed);
  void write_chain(uint16_t id, const Buffers& buffers);
  void write_table(uint16_t id, const Buffers& buffers);
  // Writes the first descriptor of the next chain. That of the first chain in a batch is not shown yet.
  void write_head(const Descriptor& head);
  [[nodiscard]] bool is_used() const;
  [[nodiscard]] std::byte* entry(const PackedPlace& place) const {
    return desc_ + place.position * descriptor_bytes;
  }

  std::byte* desc_;
  std::byte* driver_;
  std::byte* device_;
  std::byte* tables_;
  memory::GuestAddress tables_address_;
  uint64_t table_bytes_;
  uint32_t table_entries_;
  ByteOrder order_;
  uint32_t size_;
  bool event_idx_;
  PackedPlace avail_;          // added up to here
  PackedPlace used_;           // taken up to here
  uint32_t unpublished_ = 0;   // entries
  std::byte* held_ = nullptr;  // the first of them, whose flags show all
  uint16_t held_flags_ = 0;
  uint32_t free_;  // entries
  Tokens tokens_;
  // What the tables hold. A descriptor that stays the same is not written again, so that its cache line stays
  // with the device.
  std::vector<Descriptor> known_tables_;
  std::vector<uint16_t> free_ids_;
  std::optional<Error> broken_;
};

}  // namespace ringway::ring
