// BlkFrontEnd: a disk behind a vhost-user socket, started without a virtual machine: memory is shared, queues
// run, and each has its driver. Owned by the thread that opened it; the drivers may each be given to a thread
// of their own.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/tools/blk_disk.h"
#include "ringway/tools/blk_driver.h"
#include "ringway/tools/front_end.h"

namespace ringway::tools {

struct BlkFrontEndOptions {
  std::string socket;
  uint16_t queues = 1;
  uint16_t depth = 1;          // slots of each queue
  uint32_t data_bytes = 4096;  // of each slot
  uint32_t ring_size = 0;      // entries; 0: what the depth needs, at least 128
  bool packed = false;
  bool indirect = true;  // where it is offered, as is event_idx
  bool event_idx = true;
  bool in_order = false;
  bool huge_pages = false;
  bool dirty_log = false;  // what the device writes is logged, as while a machine moves
  bool inflight = false;   // have the back-end note what is in flight, where it can; needed for reconnect()
  std::chrono::milliseconds patience{30'000};  // for each answer
};

class BlkFrontEnd {
 public:
  // The error is a sentence for the user.
  static std::expected<std::unique_ptr<BlkFrontEnd>, std::string> open(const BlkFrontEndOptions& options);

  [[nodiscard]] const BlkDisk& disk() const { return disk_; }
  [[nodiscard]] const BlkFrontEndOptions& options() const {
    return options_;
  }  // with ring_size as it was chosen
  [[nodiscard]] ring::Format format() const { return format_; }
  [[nodiscard]] pid_t pid() const { return front_end_->pid(); }
  [[nodiscard]] const std::string& program() const { return front_end_->program(); }
  [[nodiscard]] BlkDriver& driver(uint16_t queue) { return *drivers_[queue]; }
  [[nodiscard]] const Signal& call_signal(uint16_t queue) const { return front_end_->call_signal(queue); }

  // Pages of guest memory that the device has marked as written so far; with dirty_log.
  [[nodiscard]] uint64_t dirty_pages() const;
  // What has gone wrong beside the rings, if anything: the back-end left, or says that a ring is broken.
  [[nodiscard]] std::optional<std::string> trouble() const { return front_end_->trouble(); }
  // The back-end has gone: what was started goes on with the one that is at the socket now. One try. The
  // drivers may be in use meanwhile.
  std::expected<void, std::string> reconnect();
  [[nodiscard]] bool may_reconnect() const { return inflight_.has_value(); }
  [[nodiscard]] bool gone() const { return front_end_->gone(); }
  // Waits until the back-end has ended what it accepted, and stops all queues. An error is a sentence.
  std::expected<void, std::string> stop() { return front_end_->stop(); }

 private:
  explicit BlkFrontEnd(const BlkFrontEndOptions& options) : options_(options) {}
  Result<> negotiate();
  [[nodiscard]] vhost::Agreement wanted() const;
  Result<> make_queues();
  Result<> share_memory();
  Result<> share_log();
  Result<> prepare_inflight();
  Result<> start_queue(uint16_t index, const ring::RingBase& base);
  Result<> go_on();

  BlkFrontEndOptions options_;
  std::unique_ptr<FrontEnd> front_end_;
  uint64_t features_ = 0;  // agreed upon at first
  ring::Format format_;
  std::optional<vhost::InflightArea> inflight_;
  BlkDisk disk_;
  Mapping log_;  // empty without dirty_log
  std::vector<std::unique_ptr<BlkDriver>> drivers_;
};

}  // namespace ringway::tools
