// Backing: where a disk keeps its bytes: a file, a block device, memory, or nowhere. One Backing per device,
// shared by its queues; each queue opens a Lane of its own, so that nothing is locked on the way of a
// request. Thread rule: a Backing may be asked by any thread; a Lane and its requests belong to the thread of
// its loop.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/loop/loop.h"

namespace ringway::backing {

constexpr uint32_t sector_size = 512;  // bytes; the unit of capacities

enum class Operation : uint8_t {
  read,
  write,
  flush,         // all writes that had ended before it was submitted are on stable storage
  discard,       // the range is no longer needed; it may read as anything, and space may be given back
  write_zeroes,  // the range reads as zeros
  secure_erase,  // write_zeroes that also leaves no copy of the old bytes; only where Geometry says so
};

// What a device may tell its driver. All in bytes; 0: unknown, or for the maxima: not supported.
struct Geometry {
  uint32_t logical_block_size = sector_size;   // of the disk's layout; single sectors are served all the same
  uint32_t physical_block_size = sector_size;  // a power-of-two multiple of the logical one
  uint32_t minimum_io_size = 0;
  uint32_t optimal_io_size = 0;
  uint64_t max_discard = 0;  // of one request, also for the two below
  uint32_t discard_granularity = sector_size;
  uint32_t discard_alignment = 0;  // offset of the first aligned byte
  uint64_t max_write_zeroes = 0;
  bool unmapping_zeroes = false;  // write_zeroes with may_unmap gives space back
  uint64_t max_secure_erase = 0;
};

class Lane;

// One request, owned by the caller: one per ring entry, used again and again. Between submit and its end only
// the lane may touch it.
struct Request {
  Operation operation = Operation::read;
  bool durable = false;           // write, write_zeroes, secure_erase: ends only when on stable storage
  bool may_unmap = false;         // write_zeroes: space may be given back
  std::span<const iovec> pieces;  // read, write: where the bytes are
  uint64_t offset = 0;            // bytes, whole sectors
  uint64_t length = 0;            // bytes, whole sectors; read, write: the sum of the pieces
  // Called on the loop's thread. `result`: 0, or a negative errno.
  void (*done)(Request& request, int result) = nullptr;

  // The lane's own notes.
  struct Step : loop::FileRequest {
    Request* request = nullptr;
  } step;
  Lane* lane = nullptr;
  Request* next = nullptr;  // in a list of those that wait
  uint64_t finished = 0;    // bytes
  iovec piece{};
  std::byte* bounce = nullptr;
};

// What submit() says: a result (0, or a negative errno), or nothing, for the request is under way. It is what
// std::optional<int> would be, in one register: that type is written to the stack in parts and read back
// whole, which waits for every store before it, also those to memory that the driver's CPU holds.
class Outcome {
 public:
  Outcome(int result) : value_(result) { assert(result <= 0); }  // NOLINT(google-explicit-constructor)
  Outcome(std::nullopt_t) : value_(under_way) {}                 // NOLINT(google-explicit-constructor)
  explicit operator bool() const { return value_ != under_way; }
  int operator*() const { return value_; }

 private:
  static constexpr int under_way = 1;
  int value_;
};

// One queue's way to a backing. Destroyed when none of its requests is under way.
class Lane {
 public:
  virtual ~Lane() = default;
  // Ends at once (the value: 0, or a negative errno; `done` is not called) or later (nothing: `done` will be
  // called, never from inside submit). A range that is not whole sectors or not all inside the capacity ends
  // in -EINVAL, a change of a read-only backing in -EROFS, what the backing cannot do in -EOPNOTSUPP. What is
  // submitted in one turn of the loop goes to the kernel together.
  virtual Outcome submit(Request& request) = 0;
  // This is submitted soon: a lane may begin to load what it will need.
  virtual void expect(const Request& request) { (void)request; }
};

class Backing {
 public:
  virtual ~Backing() = default;

  // On the thread of `loop`. The backing must outlive the lane. A lane that cannot get what it needs fails
  // its requests.
  virtual std::unique_ptr<Lane> open_lane(loop::Loop& loop) = 0;

  [[nodiscard]] uint64_t capacity() const {
    return capacity_.load(std::memory_order_relaxed);
  }  // bytes, whole sectors
  [[nodiscard]] const Geometry& geometry() const { return geometry_; }
  [[nodiscard]] bool read_only() const { return read_only_; }
  // Looks at the size again, after a file has grown. True if the capacity is another now.
  virtual Result<bool> refresh() { return false; }
  // Live upgrade: what another process needs to go on with the same bytes under the same locks; none:
  // nothing, it opens its own. Refused where it could not.
  [[nodiscard]] virtual Result<UniqueFd> hand_over() const { return UniqueFd(); }
  // All writes that have ended are on stable storage when this returns. Blocks: never on a worker's thread.
  virtual Result<> flush_now() { return {}; }
  // The first queue is about to start, which an error prevents; the last one has stopped, and another process
  // may go on with the disk (FileOptions::lock_while_running). May block: never on a worker's thread.
  virtual Result<> resume() { return {}; }
  virtual void suspend() {}

  // 0, or the errno that ends a request which must not get as far as the medium.
  [[nodiscard]] int check(const Request& request) const {
    if (request.operation == Operation::flush) return 0;
    if ((request.offset | request.length) % sector_size != 0) return -EINVAL;
    const uint64_t end = capacity();
    if (request.length > end || request.offset > end - request.length) return -EINVAL;
    return read_only_ && request.operation != Operation::read ? -EROFS : 0;
  }

 protected:
  std::atomic<uint64_t> capacity_ = 0;
  Geometry geometry_;
  bool read_only_ = false;
};

}  // namespace ringway::backing
