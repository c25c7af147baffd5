// Segments: where a buffer lies in our address space, piece by piece. Owned by one thread.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace ringway::memory {

// A list of pieces in storage that somebody else owns; it never grows beyond that storage.
class Segments {
 public:
  Segments() = default;
  explicit Segments(std::span<iovec> storage) : storage_(storage) {}

  // Appends a piece, merging it with the last one if they touch; false when the storage is full.
  bool push(std::byte* base, size_t length) {
    if (length == 0) return true;
    if (count_ > floor_) {
      iovec& last = storage_[count_ - 1];
      if (static_cast<std::byte*>(last.iov_base) + last.iov_len == base) {
        last.iov_len += length;
        return true;
      }
    }
    if (count_ == storage_.size()) return false;
    storage_[count_++] = {.iov_base = base, .iov_len = length};
    return true;
  }
  // What follows is not merged into what is there: the border between readable and writable pieces.
  void fence() { floor_ = count_; }
  void clear() { count_ = floor_ = 0; }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] size_t capacity() const { return storage_.size(); }
  [[nodiscard]] std::span<iovec> all() const { return storage_.first(count_); }

 private:
  std::span<iovec> storage_;
  size_t count_ = 0;
  size_t floor_ = 0;
};

}  // namespace ringway::memory
