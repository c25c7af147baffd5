// FileLane: one queue's requests on their way to a file and back. Owned by the thread of its loop.
#pragma once

#include <memory>

#include "ringway/device/backing/bounce.h"
#include "ringway/device/backing/disk_file.h"

namespace ringway::backing {

// A file description hears of each failed write-back once, at its next sync; whoever syncs first takes the
// news away. So every lane has a description of its own, and never two syncs under way: what asks for one
// meanwhile shares the next.
class FileLane final : public Lane {
 public:
  FileLane(const Backing& backing, SharedFile& shared, loop::Loop& loop);
  ~FileLane() override;
  Outcome submit(Request& request) override;

 private:
  using Handler = void (*)(loop::FileRequest& step, int64_t result);
  struct Sync : loop::FileRequest {
    FileLane* lane = nullptr;
  };

  Outcome begin(Request& request);
  Outcome begin_transfer(Request& request);
  Outcome begin_bounced(Request& request);
  Outcome begin_discard(Request& request);
  Outcome begin_erase(Request& request);
  Outcome transfer_now(Request& request);
  void continue_transfer(Request& request);
  void continue_bounced(Request& request);
  void continue_zeroing(Request& request);
  void write_zeros(Request& request);
  void sync(Request& request);
  void start_sync();
  void end_sync(int64_t result);

  void allocate(Request& request, int mode, Handler handler);
  void control(Request& request, int command, Handler handler);
  void submit_step(Request& request, Handler handler);
  void written(Request& request);
  void end_bounced(Request& request, int result);
  void end(Request& request, int result);

  static void prepare_transfer(Request& request);
  static void on_transferred(loop::FileRequest& step, int64_t result);
  static void on_bounced(loop::FileRequest& step, int64_t result);
  static void on_discarded(loop::FileRequest& step, int64_t result);
  static void on_erased(loop::FileRequest& step, int64_t result);
  static void on_punched(loop::FileRequest& step, int64_t result);
  static void on_zeroed(loop::FileRequest& step, int64_t result);
  static void on_zeros_written(loop::FileRequest& step, int64_t result);

  [[nodiscard]] int fd_for(const Request& request) const;
  [[nodiscard]] bool is_aligned(const Request& request) const;
  [[nodiscard]] bool pieces_are_aligned(const Request& request) const;

  const Backing& backing_;
  SharedFile& shared_;
  const DiskFile& file_;
  loop::Loop& loop_;
  LaneFiles own_;
  int open_error_ = 0;  // negative errno: a description is missing, and every request ends in this
  bool can_discard_ = true;
  bool can_punch_ = true;
  bool can_zero_ = true;
  size_t under_way_ = 0;
  std::shared_ptr<BouncePool> bounces_;  // since the first request that needed it

  Sync sync_;
  bool syncing_ = false;
  Request* in_sync_ = nullptr;        // answered by the sync that is under way
  Request* wait_for_sync_ = nullptr;  // by the next one
};

}  // namespace ringway::backing
