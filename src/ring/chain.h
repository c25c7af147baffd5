// Chain: one popped descriptor chain, a private copy of where its buffers lie. Owned by the ring's thread.
// VIRTIO "Message Framing": a device must not care how a request is cut into descriptors, so a device works
// with the two cursors, Reader and Writer, and never with descriptors.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "ringway/memory/segments.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::ring {

// Walks over pieces from the front, eating them: also in the list that it was made from, so a list has one
// cursor. The pieces are ours (copies), the bytes are the peer's.
class Cursor {
 public:
  Cursor() = default;
  explicit Cursor(std::span<iovec> pieces) : pieces_(pieces) {
    for (const iovec& piece : pieces_) remaining_ += piece.iov_len;
  }
  [[nodiscard]] uint64_t remaining() const { return remaining_; }
  // What is left, ready for readv or writev. No piece is empty.
  [[nodiscard]] std::span<iovec> pieces() const { return pieces_; }
  // Moves over `length` bytes; false, and nothing moves, if fewer remain.
  bool skip(uint64_t length);
  // Drops bytes from the end until `length` remain. No effect if no more than that do.
  void truncate(uint64_t length);

 protected:
  // `length` <= remaining. Calls visit(place, bytes) for what is passed.
  template <class Visit>
  void pass(uint64_t length, Visit&& visit);
  // Moves over `length` bytes that all lie in the first piece.
  void eat_first(size_t length) {
    iovec& first = pieces_.front();
    remaining_ -= length;
    if (first.iov_len == length) {
      pieces_ = pieces_.subspan(1);
      return;
    }
    first.iov_base = static_cast<std::byte*>(first.iov_base) + length;
    first.iov_len -= length;
  }
  [[nodiscard]] bool first_holds(size_t length) const {
    return !pieces_.empty() && pieces_.front().iov_len >= length;
  }

  std::span<iovec> pieces_;
  uint64_t remaining_ = 0;
};

class Reader : public Cursor {
 public:
  using Cursor::Cursor;
  // Copies `to.size()` bytes out and moves on; false, and nothing moves, if fewer remain.
  bool read(std::span<std::byte> to);
  template <class T>
    requires(!std::is_convertible_v<T&, std::span<std::byte>>)
  bool read(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (!first_holds(sizeof value)) return read(std::as_writable_bytes(std::span(&value, 1)));
    memory::copy_out(&value, pieces_.front().iov_base, sizeof value);
    eat_first(sizeof value);
    return true;
  }
};

// A place for one byte in the peer's memory: a status.
class ByteSlot {
 public:
  ByteSlot() = default;
  void write(uint8_t value) const { memory::store(at_, value); }

 private:
  friend class Writer;
  explicit ByteSlot(std::byte* at) : at_(at) {}
  std::byte* at_ = nullptr;
};

class Writer : public Cursor {
 public:
  using Cursor::Cursor;
  // Copies in and moves on; false, and nothing is written, if fewer bytes remain.
  bool write(std::span<const std::byte> from);
  template <class T>
    requires(!std::is_convertible_v<const T&, std::span<const std::byte>>)
  bool write(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (!first_holds(sizeof value)) return write(std::as_bytes(std::span(&value, 1)));
    memory::copy_in(pieces_.front().iov_base, &value, sizeof value);
    eat_first(sizeof value);
    return true;
  }
  // Splits off the last byte. At least one must remain.
  ByteSlot take_last_byte();
};

// What a ring keeps of one chain; two cache lines, of which a chain of three pieces needs one. All zeros:
// free.
struct alignas(64) Slot {
  static constexpr size_t inline_pieces = 7;
  enum State : uint8_t {
    free,
    ready,   // walked, not popped yet
    flying,  // popped
    done,    // in order: used, but an earlier chain is not
  };
  uint16_t readable;     // pieces, up to 32768
  uint16_t writable;     // pieces, behind the readable ones
  uint16_t descriptors;  // ring entries that it takes
  uint16_t index;        // what the driver knows it by: head index or buffer id
  uint32_t written;      // in order: what is to be reported
  uint16_t generation;   // the memory snapshot that the pieces point into
  State state;
  bool spilled;  // the pieces lie in a block, which place[0].iov_base points at
  iovec place[inline_pieces];

  [[nodiscard]] iovec* pieces() { return spilled ? static_cast<iovec*>(place[0].iov_base) : place; }
};
static_assert(sizeof(Slot) == 128);

// Word by word: they have just been written so, and a load of both words at once would wait for the stores.
inline void copy_pieces(std::span<const iovec> pieces, iovec* to) {
  for (const iovec& piece : pieces) {
    to->iov_base = piece.iov_base;
    __asm__ volatile("" ::: "memory");
    to->iov_len = piece.iov_len;
    ++to;
  }
}

// Move-only. Ends exactly once, in a function of the ring that it came from: push_used(), push_back() or
// abandon().
class Chain {
 public:
  Chain() = default;
  explicit Chain(Slot& slot) : slot_(&slot) {}
  Chain(Chain&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
  Chain& operator=(Chain&& other) noexcept {
    assert(slot_ == nullptr);
    slot_ = std::exchange(other.slot_, nullptr);
    return *this;
  }
  ~Chain() { assert(slot_ == nullptr); }

  explicit operator bool() const { return slot_ != nullptr; }
  // Less than the ring size, and no other chain in flight has it: an index for the device's table of
  // requests.
  [[nodiscard]] uint16_t index() const { return slot_->index; }
  // One cursor of each kind per chain: see Cursor.
  [[nodiscard]] Reader reader() const { return Reader({slot_->pieces(), slot_->readable}); }
  [[nodiscard]] Writer writer() const { return Writer({slot_->pieces() + slot_->readable, slot_->writable}); }

  // For rings only.
  [[nodiscard]] const Slot& slot() const { return *slot_; }
  // For rings only: takes the slot, which ends this chain.
  [[nodiscard]] Slot& end() { return *std::exchange(slot_, nullptr); }

 private:
  Slot* slot_ = nullptr;
};

}  // namespace ringway::ring
