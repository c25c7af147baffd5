// The io_uring poller. A turn costs at most one system call, and none while nothing is submitted and nothing
// completes: completions are seen in shared memory (IORING_SQ_TASKRUN says that the kernel has some to
// deliver).
#include <liburing.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <climits>
#include <deque>
#include <unordered_set>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/loop/file_pool.h"
#include "ringway/loop/poller.h"

namespace ringway::loop {

namespace {

// Freed when neither the loop (wanted) nor the kernel (armed) holds it any more.
struct UringWatch : Watch {
  bool armed = false;       // a poll is in the kernel; its last completion is still to come
  bool due = true;          // to be armed: a multishot poll always, another until it has reported
  bool cancelling = false;  // its cancellation was submitted
  bool listed = false;      // in the list of changes for the next flush
};

constexpr unsigned submission_entries = 256;
constexpr unsigned completion_entries = 4096;
constexpr unsigned completions_per_turn = 256;

// What a completion belongs to: the low bits of its user data; the others are a pointer.
enum Tag : uint64_t { file_tag = 0, watch_tag = 1, doorbell_tag = 2, ignored_tag = 3, tag_mask = 3 };

uint64_t tagged(const void* pointer, Tag tag) { return reinterpret_cast<uintptr_t>(pointer) | tag; }

template <class T>
T& untagged(uint64_t data) {
  return *reinterpret_cast<T*>(data & ~static_cast<uint64_t>(tag_mask));  // NOLINT
}

// The kernel has threads for writes to a page cache, for flushes and for holes. A read waits without one.
bool may_need_thread(const FileRequest& request) { return request.operation != FileRequest::Operation::read; }

void prepare_transfer(io_uring_sqe* sqe, const FileRequest& request) {
  const bool writes = request.operation == FileRequest::Operation::write;
  if (request.pieces.size() == 1 && request.pieces[0].iov_len <= INT_MAX) {
    const iovec& piece = request.pieces[0];
    io_uring_prep_rw(writes ? IORING_OP_WRITE : IORING_OP_READ, sqe, request.fd, piece.iov_base,
                     static_cast<unsigned>(piece.iov_len), request.offset);
  } else {
    io_uring_prep_rw(writes ? IORING_OP_WRITEV : IORING_OP_READV, sqe, request.fd, request.pieces.data(),
                     static_cast<unsigned>(request.pieces.size()), request.offset);
  }
  sqe->rw_flags = request.flags;
}

void prepare(io_uring_sqe* sqe, FileRequest& request) {
  switch (request.operation) {
    case FileRequest::Operation::read:
    case FileRequest::Operation::write:
      prepare_transfer(sqe, request);
      break;
    case FileRequest::Operation::sync:
      io_uring_prep_fsync(sqe, request.fd, request.flags != 0 ? IORING_FSYNC_DATASYNC : 0);
      break;
    case FileRequest::Operation::allocate:
      io_uring_prep_fallocate(sqe, request.fd, request.flags, static_cast<off_t>(request.offset),
                              static_cast<off_t>(request.length));
      break;
    case FileRequest::Operation::control:
      assert(false);  // PoolQueue
      break;
  }
  io_uring_sqe_set_data64(sqe, tagged(&request, file_tag));
}

class UringPoller final : public Poller {
 public:
  UringPoller(Client& client, std::shared_ptr<Doorbell> doorbell)
      : client_(client), doorbell_(std::move(doorbell)) {}
  ~UringPoller() override;
  Result<> open();

  Result<Watch*> watch(const Signal& signal, SourceState& source) override;
  Result<Watch*> watch_once(int fd, short events, SourceState& source) override;
  Result<> rearm(Watch& watch) override;
  void unwatch(Watch* watch) override;
  void submit(FileRequest& request) override;
  [[nodiscard]] size_t in_flight() const override { return in_flight_ + controls_.in_flight(); }
  [[nodiscard]] size_t in_threads() const override { return in_threads_ + controls_.in_flight(); }
  bool reap() override;
  void flush() override;
  void sleep(std::optional<Loop::Clock::time_point> until) override;
  [[nodiscard]] bool pending() const override { return controls_.pending(); }

 private:
  Result<> set_up();
  Result<> try_out();
  io_uring_sqe* entry();
  void prepare_all();
  void apply_changes();
  bool apply(UringWatch& watch);
  void list(UringWatch& watch);
  void complete(const io_uring_cqe& cqe);
  void poll_event(UringWatch& watch, int events, bool more);
  void release_if_free(UringWatch& watch);
  [[nodiscard]] bool kernel_has_completions() const;

  Client& client_;
  std::shared_ptr<Doorbell> doorbell_;
  io_uring ring_{};
  bool open_ = false;
  bool doorbell_armed_ = false;
  size_t in_flight_ = 0;
  size_t in_threads_ = 0;
  std::deque<FileRequest*>
      waiting_;  // for room in the submission queue: only when the kernel refuses to take more
  std::unordered_set<UringWatch*> watches_;  // all that are not freed
  std::vector<UringWatch*> changes_;
  PoolQueue controls_{doorbell_};  // what io_uring has no operation for
};

UringPoller::~UringPoller() {
  if (!open_) return;
  io_uring_queue_exit(&ring_);
  for (UringWatch* watch : watches_) delete watch;
}

Result<> UringPoller::open() {
  TRY(set_up());
  TRY(try_out());
  io_uring_register_ring_fd(&ring_);  // saves a little per call; not everywhere
  return {};
}

Result<> UringPoller::set_up() {
  // Completions are delivered when we ask for them (Linux 6.1), or at our next system call (5.19), or by
  // interrupting us.
  constexpr std::array<unsigned, 3> attempts = {
      IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
          IORING_SETUP_TASKRUN_FLAG,
      IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
  int error = 0;
  for (const unsigned flags : attempts) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE;
    params.cq_entries = completion_entries;
    error = -io_uring_queue_init_params(submission_entries, &ring_, &params);
    if (error == EINVAL) continue;
    if (error != 0) break;
    open_ = true;
    // The last of these came with multishot polls (Linux 5.13).
    constexpr unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS;
    if ((params.features & needed) != needed) return refused("io_uring of this kernel is too old");
    return {};
  }
  return os_failure("cannot set up io_uring", error);
}

// A sandbox may allow the set-up and forbid the rest.
Result<> UringPoller::try_out() {
  io_uring_sqe* sqe = entry();
  io_uring_prep_nop(sqe);
  io_uring_sqe_set_data64(sqe, ignored_tag);
  const int submitted = io_uring_submit_and_wait(&ring_, 1);
  if (submitted < 0) return os_failure("io_uring does not work", -submitted);
  return {};
}

// Null when the submission queue is full and the kernel does not take from it now.
io_uring_sqe* UringPoller::entry() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe != nullptr) return sqe;
  io_uring_submit(&ring_);
  return io_uring_get_sqe(&ring_);
}

void UringPoller::submit(FileRequest& request) {
  if (request.operation == FileRequest::Operation::control) return controls_.submit(request);
  ++in_flight_;
  in_threads_ += may_need_thread(request) ? 1 : 0;
  io_uring_sqe* sqe = waiting_.empty() ? entry() : nullptr;
  if (sqe == nullptr) {
    waiting_.push_back(&request);
    return;
  }
  prepare(sqe, request);
}

Result<Watch*> UringPoller::watch(const Signal& signal, SourceState& source) {
  auto* watch = new UringWatch;
  watch->signal = &signal;
  watch->fd = signal.fd();
  watch->events = POLLIN;
  watch->source = &source;
  watches_.insert(watch);
  list(*watch);
  return watch;
}

Result<Watch*> UringPoller::watch_once(int fd, short events, SourceState& source) {
  auto* watch = new UringWatch;
  watch->fd = fd;
  watch->events = events;
  watch->source = &source;
  watches_.insert(watch);
  list(*watch);
  return watch;
}

Result<> UringPoller::rearm(Watch& watch) {
  auto& own = static_cast<UringWatch&>(watch);
  own.due = true;
  list(own);
  return {};
}

void UringPoller::unwatch(Watch* watch) {
  watch->wanted = false;
  list(static_cast<UringWatch&>(*watch));
}

void UringPoller::list(UringWatch& watch) {
  if (watch.listed) return;
  watch.listed = true;
  changes_.push_back(&watch);
}

void UringPoller::apply_changes() {
  while (!changes_.empty()) {
    UringWatch& watch = *changes_.back();
    if (!apply(watch)) return;
    changes_.pop_back();
    watch.listed = false;
    release_if_free(watch);
  }
}

// False if there is no room now.
bool UringPoller::apply(UringWatch& watch) {
  const bool arm = watch.wanted && watch.due && !watch.armed;
  const bool cancel = !watch.wanted && watch.armed && !watch.cancelling;
  if (!arm && !cancel) return true;
  io_uring_sqe* sqe = entry();
  if (sqe == nullptr) return false;
  if (arm) {
    const auto events = static_cast<unsigned>(watch.events);
    if (watch.signal != nullptr) {
      io_uring_prep_poll_multishot(sqe, watch.fd, events);
    } else {
      io_uring_prep_poll_add(sqe, watch.fd, events);
    }
    io_uring_sqe_set_data64(sqe, tagged(&watch, watch_tag));
    watch.armed = true;
  } else {
    io_uring_prep_poll_remove(sqe, tagged(&watch, watch_tag));
    io_uring_sqe_set_data64(sqe, ignored_tag);
    watch.cancelling = true;
  }
  return true;
}

void UringPoller::release_if_free(UringWatch& watch) {
  if (watch.wanted || watch.armed || watch.listed) return;
  watches_.erase(&watch);
  delete &watch;
}

void UringPoller::prepare_all() {
  if (!doorbell_armed_) {
    if (io_uring_sqe* sqe = entry(); sqe != nullptr) {
      io_uring_prep_poll_multishot(sqe, doorbell_->fd(), POLLIN);
      io_uring_sqe_set_data64(sqe, doorbell_tag);
      doorbell_armed_ = true;
    }
  }
  apply_changes();
  while (!waiting_.empty()) {
    io_uring_sqe* sqe = entry();
    if (sqe == nullptr) return;
    prepare(sqe, *waiting_.front());
    waiting_.pop_front();
  }
}

bool UringPoller::kernel_has_completions() const {
  return (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

void UringPoller::flush() {
  controls_.flush();
  if (!doorbell_armed_ || !changes_.empty() || !waiting_.empty()) prepare_all();
  if (io_uring_sq_ready(&ring_) == 0 && !kernel_has_completions()) return;
  io_uring_submit_and_get_events(&ring_);
}

void UringPoller::sleep(std::optional<Loop::Clock::time_point> until) {
  controls_.flush();
  prepare_all();
  if (controls_.pending()) return;
  __kernel_timespec time{};
  if (until) {
    const auto left = std::max(*until - Loop::Clock::now(), Loop::Clock::duration::zero());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    time.tv_sec = seconds.count();
    time.tv_nsec = std::chrono::nanoseconds(left - seconds).count();
  }
  io_uring_cqe* first = nullptr;
  io_uring_submit_and_wait_timeout(&ring_, &first, 1, until ? &time : nullptr, nullptr);
}

bool UringPoller::reap() {
  unsigned count = 0;
  io_uring_cqe* cqe = nullptr;
  // One by one, for a completion may submit, and so make the kernel post more.
  while (count < completions_per_turn && io_uring_cq_ready(&ring_) > 0 &&
         io_uring_peek_cqe(&ring_, &cqe) == 0) {
    const io_uring_cqe copy = *cqe;
    io_uring_cqe_seen(&ring_, cqe);
    complete(copy);
    ++count;
  }
  const bool controls = controls_.in_flight() > 0 && controls_.reap();
  return count > 0 || controls;
}

void UringPoller::complete(const io_uring_cqe& cqe) {
  const bool more = (cqe.flags & IORING_CQE_F_MORE) != 0;
  switch (cqe.user_data & tag_mask) {
    case file_tag: {
      --in_flight_;
      auto& request = untagged<FileRequest>(cqe.user_data);
      in_threads_ -= may_need_thread(request) ? 1 : 0;
      request.done(request, cqe.res);
      break;
    }
    case watch_tag:
      poll_event(untagged<UringWatch>(cqe.user_data), cqe.res, more);
      break;
    case doorbell_tag:
      doorbell_armed_ = more;
      break;
    default:
      break;
  }
}

void UringPoller::poll_event(UringWatch& watch, int events, bool more) {
  if (!more) watch.armed = watch.cancelling = false;
  if (!watch.wanted) {
    release_if_free(watch);
    return;
  }
  if (events < 0) {
    log::warning("cannot watch a notification fd: error {}", -events);
    return;
  }
  if (watch.signal == nullptr) {
    watch.due = false;
    client_.signalled(*watch.source);
    return;
  }
  const bool taken = watch.signal->take();
  // A pipe without writers is always ready and never has anything again.
  const bool over = !taken && (events & (POLLHUP | POLLERR)) != 0;
  if (!more && !over) list(watch);
  client_.signalled(*watch.source);
}

}  // namespace

Result<std::unique_ptr<Poller>> make_uring_poller(Poller::Client& client,
                                                  std::shared_ptr<Doorbell> doorbell) {
  auto poller = std::make_unique<UringPoller>(client, std::move(doorbell));
  TRY(poller->open());
  return poller;
}

}  // namespace ringway::loop
