// SplitDriver: a split virtqueue, driver half. Owned by one thread. The functions are described in driver.h.
#pragma once

#include <optional>
#include <vector>

#include "ringway/ring/driver_config.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {

class SplitDriver {
 public:
  // `config` has been validated and its area is zeroed.
  explicit SplitDriver(const DriverConfig& config);

  std::optional<uint16_t> add(const Buffers& buffers) {
    const uint32_t needed = descriptors(buffers);
    if (needed > free_) return std::nullopt;
    return add(buffers, needed);
  }
  [[nodiscard]] uint16_t next_token() const { return free_head_; }
  [[nodiscard]] bool publish();
  Result<std::optional<Used>> take_used();
  void disable_calls();
  [[nodiscard]] bool enable_calls();

  [[nodiscard]] uint32_t in_flight() const { return static_cast<uint32_t>(tokens_.in_flight()); }
  [[nodiscard]] uint32_t free_descriptors() const { return free_; }
  [[nodiscard]] uint32_t size() const { return mask_ + uint32_t{1}; }

 private:
  [[nodiscard]] bool takes_table(const Buffers& buffers) const {
    return buffers.count() > 1 && buffers.count() <= table_entries_;
  }
  [[nodiscard]] uint32_t descriptors(const Buffers& buffers) const {
    return takes_table(buffers) ? 1 : buffers.count();
  }
  uint16_t add(const Buffers& buffers, uint32_t needed);
  void make_available(uint16_t head);
  // Writes a chain; returns its last descriptor.
  uint16_t write_chain(uint16_t head, const Buffers& buffers);
  void write_table(uint16_t head, const Buffers& buffers);
  void write(std::byte* at, Descriptor& known, const Descriptor& descriptor) const;
  // Looks for used entries; false if there is none.
  Result<bool> look();
  Result<bool> accept_next();
  void release(uint16_t head);
  [[nodiscard]] std::byte* entry(uint16_t index) const { return desc_ + index * descriptor_bytes; }

  std::byte* desc_;
  std::byte* driver_;
  std::byte* device_;
  std::byte* tables_;
  memory::GuestAddress tables_address_;
  uint64_t table_bytes_;
  uint32_t table_entries_;
  ByteOrder order_;
  uint16_t mask_;  // size - 1
  bool event_idx_;
  bool in_order_;
  uint16_t avail_;  // added up to here
  uint16_t published_;
  uint16_t taken_;      // used entries taken up to here
  uint16_t seen_used_;  // the device's index when it was read last
  uint16_t free_head_ = 0;
  uint32_t free_;  // descriptors
  Tokens tokens_;
  // What the descriptors and the tables hold. What stays the same is not written again, so that its cache
  // line stays with the device: a driver that uses its buffers in turns writes hardly any.
  std::vector<Descriptor> known_;
  std::vector<Descriptor> known_tables_;
  std::vector<uint16_t> known_avail_;  // the available ring, likewise
  std::vector<uint16_t> next_;         // of each descriptor: in its chain, or in the list of free ones
  std::optional<Error> broken_;
};

}  // namespace ringway::ring
