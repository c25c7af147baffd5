#include "ringway/ring/chain.h"

#include <algorithm>

namespace ringway::ring {

template <class Visit>
void Cursor::pass(uint64_t length, Visit&& visit) {
  while (length > 0) {
    const size_t here = std::min<uint64_t>(length, pieces_.front().iov_len);
    visit(pieces_.front().iov_base, here);
    eat_first(here);
    length -= here;
  }
}

bool Cursor::skip(uint64_t length) {
  if (length > remaining_) return false;
  pass(length, [](void*, size_t) {});
  return true;
}

void Cursor::truncate(uint64_t length) {
  while (remaining_ > length) {
    iovec& last = pieces_.back();
    const uint64_t surplus = remaining_ - length;
    if (surplus < last.iov_len) {
      last.iov_len -= surplus;
      remaining_ = length;
      return;
    }
    remaining_ -= last.iov_len;
    pieces_ = pieces_.first(pieces_.size() - 1);
  }
}

bool Reader::read(std::span<std::byte> to) {
  if (to.size() > remaining_) return false;
  std::byte* next = to.data();
  pass(to.size(), [&](const void* from, size_t length) {
    memory::copy_out(next, from, length);
    next += length;
  });
  return true;
}

bool Writer::write(std::span<const std::byte> from) {
  if (from.size() > remaining_) return false;
  const std::byte* next = from.data();
  pass(from.size(), [&](void* to, size_t length) {
    memory::copy_in(to, next, length);
    next += length;
  });
  return true;
}

ByteSlot Writer::take_last_byte() {
  assert(remaining_ > 0);
  iovec& last = pieces_.back();
  auto* const at = static_cast<std::byte*>(last.iov_base) + last.iov_len - 1;
  truncate(remaining_ - 1);
  return ByteSlot(at);
}

}  // namespace ringway::ring
