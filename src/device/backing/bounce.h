// BouncePool: aligned buffers for direct I/O of memory that is not. One pool per worker thread, shared by all
// lanes there, so that memory is bounded whatever drivers send. Owned by its thread.
#pragma once

#include <memory>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/device/backing/backing.h"

namespace ringway::backing {

class BouncePool {
 public:
  static constexpr size_t buffer_size = size_t{128} << 10;
  static constexpr size_t buffers = 8;

  // The pool of this thread; made if no lane holds it. Null if there is no memory.
  static std::shared_ptr<BouncePool> of_this_thread();

  // Page-aligned; null if all are in use.
  std::byte* take();
  // The request waits for a buffer.
  void wait(Request& request);
  // Gives a buffer back. Not null: a request that has waited, and now has the buffer.
  Request* give_back(std::byte* buffer);

 private:
  explicit BouncePool(Mapping memory);
  const Mapping memory_;
  std::vector<std::byte*> free_;
  Request* first_waiting_ = nullptr;
  Request** end_of_waiting_ = &first_waiting_;
};

// Copy between pieces and a buffer, from `skip` bytes into the pieces on. The pieces hold at least skip +
// length bytes.
void gather(std::span<const iovec> pieces, uint64_t skip, std::byte* to, size_t length);
void scatter(const std::byte* from, size_t length, std::span<const iovec> pieces, uint64_t skip);

}  // namespace ringway::backing
