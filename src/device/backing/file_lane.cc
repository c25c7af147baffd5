#include "ringway/device/backing/file_lane.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "ringway/base/log.h"
#include "ringway/loop/file_pool.h"

namespace ringway::backing {
namespace {

using Step = loop::FileRequest::Operation;

constexpr size_t max_pieces = IOV_MAX;  // of one system call

bool interrupted(int64_t result) { return result == -EINTR || result == -EAGAIN; }

Request& request_of(loop::FileRequest& step) { return *static_cast<Request::Step&>(step).request; }
FileLane& lane_of(const Request& request) { return static_cast<FileLane&>(*request.lane); }

// What a queue may copy before others have their turn.
constexpr uint64_t max_transfer_now = uint64_t{256} << 10;

bool multiple(uint64_t value, uint32_t alignment) { return (value & (alignment - 1)) == 0; }

// A megabyte of zeros in 64 KiB of them.
constexpr size_t zero_size = size_t{64} << 10;
std::span<const iovec> zeros() {
  alignas(4096) static std::array<std::byte, zero_size> block;  // never written
  static const auto pieces = [] {
    std::array<iovec, 16> all;
    all.fill({.iov_base = block.data(), .iov_len = block.size()});
    return all;
  }();
  return pieces;
}

}  // namespace

FileLane::FileLane(const Backing& backing, SharedFile& shared, loop::Loop& loop)
    : backing_(backing), shared_(shared), file_(shared.file), loop_(loop) {
  if (Result<LaneFiles> own = shared_.take()) {
    own_ = *std::move(own);
  } else {
    log::error("{}; the requests of this queue will fail", own.error().to_string());
    open_error_ = -own.error().os_error;
  }
  sync_.operation = Step::sync;
  sync_.fd = own_.fd.get();
  sync_.flags = 1;  // data only; the size is data
  sync_.lane = this;
  sync_.done = [](loop::FileRequest& step, int64_t result) {
    static_cast<Sync&>(step).lane->end_sync(result);
  };
}

FileLane::~FileLane() {
  assert(under_way_ == 0);
  if (open_error_ == 0) shared_.give_back(std::move(own_));
}

Outcome FileLane::submit(Request& request) {
  if (const int error = backing_.check(request); error != 0) return error;
  if (open_error_ != 0) return open_error_;
  if (request.operation != Operation::read && shared_.failed.load(std::memory_order_relaxed)) return -EIO;
  request.lane = this;
  request.step.request = &request;
  request.finished = 0;
  ++under_way_;
  const Outcome ended = begin(request);
  if (ended) --under_way_;
  return ended;
}

Outcome FileLane::begin(Request& request) {
  switch (request.operation) {
    case Operation::read:
    case Operation::write:
      return begin_transfer(request);
    case Operation::flush:
      if (backing_.read_only()) return 0;
      sync(request);
      return std::nullopt;
    case Operation::discard:
      return begin_discard(request);
    case Operation::write_zeroes:
      if (request.length == 0) return 0;
      continue_zeroing(request);
      return std::nullopt;
    case Operation::secure_erase:
      return begin_erase(request);
  }
  return -EOPNOTSUPP;
}

void FileLane::end(Request& request, int result) {
  --under_way_;
  request.done(request, result);
}

void FileLane::submit_step(Request& request, Handler handler) {
  request.step.done = handler;
  loop_.submit(request.step);
}

// Reading and writing.

bool FileLane::is_aligned(const Request& request) const {
  return multiple(request.offset | request.length, file_.offset_alignment);
}

bool FileLane::pieces_are_aligned(const Request& request) const {
  if (file_.offset_alignment == 1) return true;  // not direct
  // Lengths too, for a piece may end where a transfer is cut in two.
  const uint32_t length_alignment = std::max(file_.memory_alignment, file_.offset_alignment);
  return std::ranges::all_of(request.pieces, [&](const iovec& piece) {
    return multiple(reinterpret_cast<uintptr_t>(piece.iov_base), file_.memory_alignment) &&
           multiple(piece.iov_len, length_alignment);
  });
}

int FileLane::fd_for(const Request& request) const {
  return is_aligned(request) ? own_.fd.get() : own_.buffered.get();
}

Outcome FileLane::begin_transfer(Request& request) {
  if (request.length == 0) return 0;
  request.step.operation = request.operation == Operation::read ? Step::read : Step::write;
  request.step.flags = 0;
  request.step.fd = fd_for(request);
  if (file_.in_memory && request.length <= max_transfer_now) return transfer_now(request);
  if (request.step.fd == own_.fd.get() && !pieces_are_aligned(request)) return begin_bounced(request);
  continue_transfer(request);
  return std::nullopt;
}

// io_uring would hand this to a thread of the kernel, which costs many times the copy.
Outcome FileLane::transfer_now(Request& request) {
  while (request.finished < request.length) {
    prepare_transfer(request);
    const int64_t result = loop::carry_out(request.step);
    if (interrupted(result)) continue;
    if (result <= 0) return result < 0 ? static_cast<int>(result) : -EIO;
    request.finished += static_cast<uint64_t>(result);
  }
  if (!request.durable || request.operation == Operation::read) return 0;
  sync(request);
  return std::nullopt;
}

void FileLane::continue_transfer(Request& request) {
  prepare_transfer(request);
  submit_step(request, on_transferred);
}

// The next step of what is left.
void FileLane::prepare_transfer(Request& request) {
  std::span<const iovec> rest = request.pieces;
  uint64_t skip = request.finished;
  while (!rest.empty() && skip >= rest[0].iov_len) {
    skip -= rest[0].iov_len;
    rest = rest.subspan(1);
  }
  if (skip > 0) {  // the kernel stopped in the middle of a piece
    request.piece = {.iov_base = static_cast<std::byte*>(rest[0].iov_base) + skip,
                     .iov_len = rest[0].iov_len - skip};
    rest = {&request.piece, 1};
  }
  request.step.pieces = rest.first(std::min(rest.size(), max_pieces));
  request.step.offset = request.offset + request.finished;
}

void FileLane::on_transferred(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (interrupted(result)) return lane.submit_step(request, on_transferred);
  if (result <= 0)
    return lane.end(request, result < 0 ? static_cast<int>(result) : -EIO);  // 0: the file has shrunk
  request.finished += static_cast<uint64_t>(result);
  if (request.finished < request.length) return lane.continue_transfer(request);
  lane.written(request);
}

// All bytes have been moved.
void FileLane::written(Request& request) {
  if (request.durable && request.operation != Operation::read) return sync(request);
  end(request, 0);
}

// Through a buffer, a part at a time.

Outcome FileLane::begin_bounced(Request& request) {
  if (bounces_ == nullptr) bounces_ = BouncePool::of_this_thread();
  if (bounces_ == nullptr) return -ENOMEM;
  request.bounce = bounces_->take();
  if (request.bounce == nullptr) {
    bounces_->wait(request);
  } else {
    continue_bounced(request);
  }
  return std::nullopt;
}

void FileLane::continue_bounced(Request& request) {
  const size_t length = std::min<uint64_t>(request.length - request.finished, BouncePool::buffer_size);
  if (request.operation == Operation::write) gather(request.pieces, request.finished, request.bounce, length);
  request.piece = {.iov_base = request.bounce, .iov_len = length};
  request.step.pieces = {&request.piece, 1};
  request.step.offset = request.offset + request.finished;
  submit_step(request, on_bounced);
}

void FileLane::on_bounced(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (interrupted(result)) return lane.submit_step(request, on_bounced);
  if (result <= 0) return lane.end_bounced(request, result < 0 ? static_cast<int>(result) : -EIO);
  const auto length = static_cast<size_t>(result);
  if (request.operation == Operation::read) scatter(request.bounce, length, request.pieces, request.finished);
  request.finished += length;
  if (request.finished < request.length) return lane.continue_bounced(request);
  lane.end_bounced(request, 0);
}

void FileLane::end_bounced(Request& request, int result) {
  Request* const waiting = bounces_->give_back(std::exchange(request.bounce, nullptr));
  if (waiting != nullptr) lane_of(*waiting).continue_bounced(*waiting);
  result == 0 ? written(request) : end(request, result);
}

// Discarding and zeroing.

void FileLane::allocate(Request& request, int mode, Handler handler) {
  request.step.operation = Step::allocate;
  request.step.fd = file_.fd.get();  // of a block device only its exclusive holder may drop cached pages
  request.step.flags = mode | FALLOC_FL_KEEP_SIZE;
  submit_step(request, handler);
}

// Of a block device, by the holder as above.
void FileLane::control(Request& request, int command, Handler handler) {
  request.step.operation = Step::control;
  request.step.fd = file_.fd.get();
  request.step.flags = command;
  submit_step(request, handler);
}

Outcome FileLane::begin_discard(Request& request) {
  const uint64_t unit = file_.allocation_alignment;
  const uint64_t begin = (request.offset + unit - 1) / unit * unit;
  const uint64_t end = (request.offset + request.length) / unit * unit;
  if (!can_discard_ || begin >= end) return 0;  // it is only a hint
  request.step.offset = begin;
  request.step.length = end - begin;
  file_.punches ? allocate(request, FALLOC_FL_PUNCH_HOLE, on_discarded)
                : control(request, BLKDISCARD, on_discarded);
  return std::nullopt;
}

void FileLane::on_discarded(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (interrupted(result)) return lane.submit_step(request, on_discarded);
  if (result == -EOPNOTSUPP) {
    lane.can_discard_ = false;
    result = 0;
  }
  lane.end(request, static_cast<int>(result));
}

// Only block devices can. Of a file's old bytes the file system may keep copies, and so may the medium below.
Outcome FileLane::begin_erase(Request& request) {
  if (backing_.geometry().max_secure_erase == 0) return -EOPNOTSUPP;
  if (request.length == 0) return 0;
  request.step.offset = request.offset;
  request.step.length = request.length;
  control(request, BLKSECDISCARD, on_erased);
  return std::nullopt;
}

void FileLane::on_erased(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (interrupted(result)) return lane.submit_step(request, on_erased);
  result == 0 ? lane.written(request) : lane.end(request, static_cast<int>(result));
}

// By the best means that is left.
void FileLane::continue_zeroing(Request& request) {
  request.step.offset = request.offset;
  request.step.length = request.length;
  const bool allocatable = multiple(request.offset | request.length, file_.allocation_alignment);
  if (allocatable && request.may_unmap && can_punch_)
    return allocate(request, FALLOC_FL_PUNCH_HOLE, on_punched);
  if (allocatable && can_zero_) return allocate(request, FALLOC_FL_ZERO_RANGE, on_zeroed);
  write_zeros(request);
}

void FileLane::on_punched(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (result == -EOPNOTSUPP) lane.can_punch_ = false;
  if (result == -EOPNOTSUPP || interrupted(result)) return lane.continue_zeroing(request);
  result == 0 ? lane.written(request) : lane.end(request, static_cast<int>(result));
}

void FileLane::on_zeroed(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (result == -EOPNOTSUPP) lane.can_zero_ = false;
  if (result == -EOPNOTSUPP || interrupted(result)) return lane.continue_zeroing(request);
  result == 0 ? lane.written(request) : lane.end(request, static_cast<int>(result));
}

void FileLane::write_zeros(Request& request) {
  const uint64_t left = request.length - request.finished;
  if (left >= zero_size) {
    request.step.pieces = zeros().first(std::min<uint64_t>(left / zero_size, zeros().size()));
  } else {
    request.piece = {.iov_base = zeros()[0].iov_base, .iov_len = left};
    request.step.pieces = {&request.piece, 1};
  }
  request.step.operation = Step::write;
  request.step.flags = 0;
  request.step.fd = fd_for(request);
  request.step.offset = request.offset + request.finished;
  submit_step(request, on_zeros_written);
}

void FileLane::on_zeros_written(loop::FileRequest& step, int64_t result) {
  Request& request = request_of(step);
  FileLane& lane = lane_of(request);
  if (interrupted(result)) return lane.submit_step(request, on_zeros_written);
  if (result <= 0) return lane.end(request, result < 0 ? static_cast<int>(result) : -EIO);
  request.finished += static_cast<uint64_t>(result);
  if (request.finished < request.length) return lane.write_zeros(request);
  lane.written(request);
}

// Stable storage.

void FileLane::sync(Request& request) {
  request.next = std::exchange(wait_for_sync_, &request);
  if (!syncing_) start_sync();
}

void FileLane::start_sync() {
  syncing_ = true;
  in_sync_ = std::exchange(wait_for_sync_, nullptr);
  loop_.submit(sync_);
}

void FileLane::end_sync(int64_t result) {
  if (interrupted(result)) return loop_.submit(sync_);
  if (result != 0 && !shared_.failed.exchange(true)) {
    log::error("cannot flush a disk (error {}): it takes no writes until it is opened again", -result);
  }
  if (result == 0 && shared_.failed.load()) result = -EIO;
  Request* request = std::exchange(in_sync_, nullptr);
  while (request != nullptr) {
    Request* const ended = std::exchange(request, request->next);
    end(*ended, static_cast<int>(result));
  }
  syncing_ = false;
  if (wait_for_sync_ != nullptr) start_sync();
}

}  // namespace ringway::backing
