// Chain: one popped descriptor chain, a private copy of where its buffers lie. Owned by the ring's thread.
// VIRTIO "Message Framing": a device must not care how a request is cut into descriptors, so a device works with the
// two cursors, Reader and Writer, and never with descriptors.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "ringway/memory/segments.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::ring {

// Walks over pieces from the front, eating them. The pieces are ours (copies), the bytes are the peer's.
class Cursor {
 public:
  Cursor() = default;
  explicit Cursor(std::span<iovec> pieces) : pieces_(pieces) {
    for (const iovec& piece : pieces_) remaining_ += piece.iov_len;
  }
  [[nodiscard]] uint64_t remaining() const { return remaining_; }
  // What is left, ready for readv or writev.
  [[nodiscard]] std::span<iovec> pieces() const { return pieces_; }
  // Moves over `length` bytes; false, and nothing moves, if fewer remain.
  bool skip(uint64_t length);
  // Drops bytes from the end until `length` remain.
  void truncate(uint64_t length);

 protected:
  template <class Copy>
  bool each(uint64_t length, Copy&& copy);
  std::span<iovec> pieces_;
  uint64_t remaining_ = 0;
};

class Reader : public Cursor {
 public:
  using Cursor::Cursor;
  // Copies `to.size()` bytes out and moves on; false, and nothing moves, if fewer remain.
  bool read(std::span<std::byte> to);
  template <class T>
  bool read(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return read(std::as_writable_bytes(std::span(&value, 1)));
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
  bool write(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return write(std::as_bytes(std::span(&value, 1)));
  }
  // Splits off the last byte. At least one must remain.
  ByteSlot take_last_byte();
};

// What a ring keeps of a chain in flight.
struct Slot {
  static constexpr size_t inline_pieces = 6;
  iovec* pieces = nullptr;        // readable ones, then writable ones
  uint32_t readable = 0;          // pieces
  uint32_t writable = 0;          // pieces
  uint16_t descriptors = 0;       // ring entries that it takes
  uint16_t id = 0;                // what the driver knows it by: head index or buffer id
  bool busy = false;
  bool done = false;              // in order: used, but an earlier chain is not
  uint32_t written = 0;
  struct Generation* generation = nullptr;  // the memory snapshot that the pieces point into
};

// Move-only. Ends exactly once: in push_used() or push_back() of the ring that it came from.
class Chain {
 public:
  Chain() = default;
  Chain(Slot& slot, uint16_t index) : slot_(&slot), index_(index) {}
  Chain(Chain&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)), index_(other.index_) {}
  Chain& operator=(Chain&& other) noexcept {
    assert(slot_ == nullptr);
    slot_ = std::exchange(other.slot_, nullptr);
    index_ = other.index_;
    return *this;
  }
  ~Chain() { assert(slot_ == nullptr); }

  explicit operator bool() const { return slot_ != nullptr; }
  // Less than the ring size, and no other chain in flight has it: an index for the device's table of requests.
  [[nodiscard]] uint16_t index() const { return index_; }
  [[nodiscard]] Reader reader() const { return Reader({slot_->pieces, slot_->readable}); }
  [[nodiscard]] Writer writer() const { return Writer({slot_->pieces + slot_->readable, slot_->writable}); }

  // For rings only: takes the slot, which ends this chain.
  Slot& end() { return *std::exchange(slot_, nullptr); }

 private:
  Slot* slot_ = nullptr;
  uint16_t index_ = 0;
};

}  // namespace ringway::ring
