#include "ringway/ring/gather.h"

#include <algorithm>

#include "ringway/memory/user_fault.h"

namespace ringway::ring {
namespace {

const char* reason(Flaw flaw) {
  switch (flaw) {
    case Flaw::none:
      return "nothing is wrong";
    case Flaw::miss:
      return "address is not in the IOTLB";
    case Flaw::no_room:
      return "too many long chains are in flight";
    case Flaw::available_index:
      return "available index moved by more than the ring size";
    case Flaw::head_range:
      return "available head is not in the descriptor table";
    case Flaw::head_busy:
      return "available head is in flight already";
    case Flaw::next_range:
      return "next descriptor is not in its table";
    case Flaw::loop:
      return "descriptor chain loops";
    case Flaw::chain_length:
      return "descriptor chain is longer than the ring";
    case Flaw::chain_pieces:
      return "descriptor chain has too many pieces";
    case Flaw::chain_bytes:
      return "descriptor chain is longer than 4 GiB";
    case Flaw::direction:
      return "device-readable descriptor behind a device-writable one";
    case Flaw::outside:
      return "descriptor points outside the memory table";
    case Flaw::indirect_feature:
      return "indirect descriptor without VIRTIO_F_INDIRECT_DESC";
    case Flaw::indirect_next:
      return "indirect descriptor is linked with a next one";
    case Flaw::indirect_length:
      return "indirect table's length is not a positive multiple of 16";
    case Flaw::indirect_entries:
      return "indirect table has too many entries";
    case Flaw::indirect_nested:
      return "indirect descriptor inside an indirect table";
    case Flaw::packed_incomplete:
      return "descriptor chain is not complete";
    case Flaw::packed_id_range:
      return "buffer id is not less than the ring size";
    case Flaw::packed_id_busy:
      return "buffer id is in flight already";
  }
  return "";
}

}  // namespace

Error to_error(const Verdict& verdict) { return violation(reason(verdict.flaw), verdict.value).error(); }

// An indirect table in the peer's memory, in one piece as a rule. Each entry may be read once.
class Gatherer::Table {
 public:
  Table() = default;
  Table(std::span<const iovec> pieces, uint32_t entries) : pieces_(pieces), entries_(entries) {
    if (pieces.size() != 1) return;
    whole_ = static_cast<const std::byte*>(pieces[0].iov_base);
    aligned_ = reinterpret_cast<uintptr_t>(whole_) % alignof(uint64_t) == 0;
  }
  [[nodiscard]] uint32_t entries() const { return entries_; }
  [[nodiscard]] Descriptor read(uint32_t index, const ByteOrder& order) const {
    if (whole_ == nullptr) return assemble(index, order);
    const std::byte* at = whole_ + size_t{index} * descriptor_bytes;
    return aligned_ ? order.load_descriptor(at) : order.load_unaligned_descriptor(at);
  }

 private:
  // From a table that is scattered, where an entry may straddle pieces.
  [[nodiscard]] Descriptor assemble(uint32_t index, const ByteOrder& order) const {
    uint64_t words[2] = {};
    auto* to = reinterpret_cast<std::byte*>(words);
    size_t skip = size_t{index} * descriptor_bytes;
    size_t wanted = sizeof words;
    for (const iovec& piece : pieces_) {
      if (skip >= piece.iov_len) {
        skip -= piece.iov_len;
        continue;
      }
      const size_t here = std::min(wanted, piece.iov_len - skip);
      memory::copy_out(to, static_cast<const std::byte*>(piece.iov_base) + skip, here);
      to += here;
      wanted -= here;
      skip = 0;
      if (wanted == 0) break;
    }
    return order.unpack(words[0], words[1]);
  }

  std::span<const iovec> pieces_;
  const std::byte* whole_ = nullptr;
  uint32_t entries_ = 0;
  bool aligned_ = false;
};

Verdict Gatherer::open(const Descriptor& descriptor, Table& table) {
  if (descriptor.length == 0 || descriptor.length % descriptor_bytes != 0) {
    return {Flaw::indirect_length, descriptor.length};
  }
  const auto entries = static_cast<uint32_t>(descriptor.length / descriptor_bytes);
  if (entries > pieces_.capacity()) return {Flaw::indirect_entries, entries};
  memory::Segments pieces(table_room_);
  const memory::Translation translation =
      view_.translate({descriptor.address}, descriptor.length, memory::Access::read, pieces);
  if (translation.outcome != memory::Translation::ok) return explain(translation, descriptor);
  if (view_.may_lack_pages() && !memory::pages_are_here(pieces.all())) [[unlikely]] {
    missing_ = {.outcome = memory::Translation::absent,
                .address = {descriptor.address},
                .access = memory::Access::read,
                .length = descriptor.length};
    return {Flaw::miss, descriptor.address};
  }
  table = Table(pieces.all(), entries);
  return {};
}

Verdict Gatherer::add_linked_table(const Descriptor& descriptor, const ByteOrder& order) {
  Table table;
  if (const Verdict opened = open(descriptor, table); !opened.ok()) return opened;
  uint32_t index = 0;
  for (uint32_t steps = 1;; ++steps) {
    const Descriptor entry = table.read(index, order);
    if (entry.indirect()) return {Flaw::indirect_nested, index};
    if (const Verdict added = add(entry); !added.ok()) return added;
    if (!entry.continues()) return {};
    if (entry.last >= table.entries()) return {Flaw::next_range, entry.last};
    if (steps == table.entries()) return {Flaw::loop, index};
    index = entry.last;
  }
}

Verdict Gatherer::add_listed_table(const Descriptor& descriptor, const ByteOrder& order) {
  Table table;
  if (const Verdict opened = open(descriptor, table); !opened.ok()) return opened;
  for (uint32_t index = 0; index < table.entries(); ++index) {
    if (const Verdict added = add(table.read(index, order).swapped_end()); !added.ok()) return added;
  }
  return {};
}

Verdict Gatherer::explain(const memory::Translation& translation, const Descriptor& descriptor) {
  if (translation.outcome == memory::Translation::miss) {
    missing_ = translation;
    return {Flaw::miss, translation.address.value};
  }
  if (pieces_.size() == pieces_.capacity()) return {Flaw::chain_pieces, pieces_.size()};
  return {Flaw::outside, descriptor.address};
}

}  // namespace ringway::ring
