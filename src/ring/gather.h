// Gatherer: turns copied descriptors, whatever ring they come from, into the pieces of one chain, by the
// rules that both formats share. Owned by the ring's thread. VIRTIO "Message Framing", "Indirect
// Descriptors".
#pragma once

#include <cstdint>
#include <span>

#include "ringway/memory/view.h"
#include "ringway/ring/layout.h"

namespace ringway::ring {

// What is wrong with a chain. The first two are nobody's mistake: the chain is walked again later.
enum class Flaw : uint8_t {
  none,
  miss,     // the IOTLB lacks an address
  no_room,  // too many long chains are in flight
  available_index,
  head_range,
  head_busy,
  next_range,
  loop,
  chain_length,
  chain_pieces,
  chain_bytes,
  direction,
  outside,
  indirect_feature,
  indirect_next,
  indirect_length,
  indirect_entries,
  indirect_nested,
  packed_incomplete,
  packed_id_range,
  packed_id_busy,
};

// A flaw and the value that shows it; fits two registers.
struct Verdict {
  Flaw flaw = Flaw::none;
  uint64_t value = 0;
  [[nodiscard]] bool ok() const { return flaw == Flaw::none; }
};

[[nodiscard]] Error to_error(const Verdict& verdict);

class Gatherer {
 public:
  // `room` is for the pieces, and its size limits descriptors and pieces; `table_room` is for those of an
  // indirect table.
  Gatherer(memory::View& view, std::span<iovec> room, std::span<iovec> table_room)
      : view_(view), pieces_(room), table_room_(table_room) {}

  // Appends the buffer of a descriptor that is not indirect.
  Verdict add(const Descriptor& descriptor) {
    bytes_ += descriptor.length;
    if (bytes_ > max_bytes) return {Flaw::chain_bytes, bytes_};
    if (descriptor.writable() != writing_) {
      if (writing_) return {Flaw::direction, descriptor.address};
      turn_to_writing();
    }
    const memory::Translation translation =
        view_.translate({descriptor.address}, descriptor.length, access_, pieces_);
    if (translation.outcome == memory::Translation::ok) [[likely]]
      return {};
    return explain(translation, descriptor);
  }
  // Appends the buffers of an indirect table: split tables are linked lists, packed ones are lists.
  Verdict add_linked_table(const Descriptor& table, const ByteOrder& order);
  Verdict add_listed_table(const Descriptor& table, const ByteOrder& order);

  [[nodiscard]] std::span<const iovec> pieces() const { return pieces_.all(); }
  [[nodiscard]] size_t readable() const { return writing_ ? readable_ : pieces_.size(); }
  // What the IOTLB lacks, after Flaw::miss.
  [[nodiscard]] const memory::Translation& missing() const { return missing_; }

 private:
  static constexpr uint64_t max_bytes = uint64_t{1} << 32;
  class Table;
  void turn_to_writing() {
    writing_ = true;
    access_ = memory::Access::write;
    readable_ = pieces_.size();
    pieces_.fence();
  }
  Verdict explain(const memory::Translation& translation, const Descriptor& descriptor);
  Verdict open(const Descriptor& descriptor, Table& table);

  memory::View& view_;
  memory::Segments pieces_;
  std::span<iovec> table_room_;
  uint64_t bytes_ = 0;
  size_t readable_ = 0;
  bool writing_ = false;
  memory::Access access_ = memory::Access::read;
  memory::Translation missing_;
};

}  // namespace ringway::ring
