#include "ringway/device/backing/bounce.h"

#include <algorithm>
#include <utility>

#include "ringway/memory/shared_bytes.h"

namespace ringway::backing {

std::shared_ptr<BouncePool> BouncePool::of_this_thread() {
  thread_local std::weak_ptr<BouncePool> current;
  std::shared_ptr<BouncePool> pool = current.lock();
  if (pool != nullptr) return pool;
  Result<Mapping> memory = Mapping::anonymous(buffer_size * buffers);
  if (!memory) return nullptr;
  pool.reset(new BouncePool(*std::move(memory)));
  current = pool;
  return pool;
}

BouncePool::BouncePool(Mapping memory) : memory_(std::move(memory)) {
  for (size_t i = buffers; i > 0; --i) free_.push_back(memory_.data() + (i - 1) * buffer_size);
}

std::byte* BouncePool::take() {
  if (free_.empty()) return nullptr;
  std::byte* const buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void BouncePool::wait(Request& request) {
  request.next = nullptr;
  *end_of_waiting_ = &request;
  end_of_waiting_ = &request.next;
}

Request* BouncePool::give_back(std::byte* buffer) {
  if (first_waiting_ == nullptr) {
    free_.push_back(buffer);
    return nullptr;
  }
  Request* const request = std::exchange(first_waiting_, first_waiting_->next);
  if (first_waiting_ == nullptr) end_of_waiting_ = &first_waiting_;
  request->bounce = buffer;
  return request;
}

namespace {

template <class Copy>
void for_each_part(std::span<const iovec> pieces, uint64_t skip, size_t length, Copy copy) {
  for (const iovec& piece : pieces) {
    if (length == 0) return;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    const size_t part = std::min<size_t>(piece.iov_len - skip, length);
    copy(static_cast<std::byte*>(piece.iov_base) + skip, part);
    length -= part;
    skip = 0;
  }
}

}  // namespace

void gather(std::span<const iovec> pieces, uint64_t skip, std::byte* to, size_t length) {
  for_each_part(pieces, skip, length, [&](std::byte* at, size_t part) {
    memory::copy_out(to, at, part);
    to += part;
  });
}

void scatter(const std::byte* from, size_t length, std::span<const iovec> pieces, uint64_t skip) {
  for_each_part(pieces, skip, length, [&](std::byte* at, size_t part) {
    memory::copy_in(at, from, part);
    from += part;
  });
}

}  // namespace ringway::backing
