// Blk: a disk (VIRTIO "Block Device") over any backing. Thread rule: as engine::Model; the queues belong to
// workers.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "ringway/device/backing/backing.h"
#include "ringway/device/blk/config.h"
#include "ringway/device/blk/request.h"
#include "ringway/engine/model.h"

namespace ringway::blk {

class Blk final : public engine::Model {
 public:
  struct Options {
    uint16_t queues = 1;  // 1 to 256
    std::string serial;   // at most 20 bytes are told (GET_ID)
  };
  static constexpr uint16_t max_queues = 256;

  Blk(std::unique_ptr<backing::Backing> backing, const Options& options);

  // Any thread: the backing may have grown; the driver is told of a new capacity.
  Result<> refresh();
  // Backing::hand_over().
  [[nodiscard]] Result<UniqueFd> hand_over() const { return backing_->hand_over(); }

  [[nodiscard]] uint32_t device_id() const override;
  [[nodiscard]] uint64_t features() const override;
  void set_features(uint64_t features) override;
  [[nodiscard]] uint16_t queue_count() const override { return options_.queues; }
  [[nodiscard]] uint32_t config_size() const override { return sizeof(Config); }
  void read_config(uint32_t offset, std::span<std::byte> to) const override;
  Result<> write_config(uint32_t offset, std::span<const std::byte> from, bool restore) override;
  std::unique_ptr<engine::Queue> start_queue(engine::QueueLoop& loop) override;
  void reset() override;
  Result<> resume() override { return backing_->resume(); }
  void suspend() override { backing_->suspend(); }
  [[nodiscard]] std::vector<std::byte> save_state() const override;
  Result<> load_state(std::span<const std::byte> state) override;

 private:
  class RunningQueue;

  [[nodiscard]] Config config() const;
  [[nodiscard]] Disk disk(const engine::QueueLoop& loop) const;
  Result<> set_writeback(bool writeback);

  const std::unique_ptr<backing::Backing> backing_;
  const Options options_;
  uint64_t features_ = 0;
  std::atomic<bool> writeback_ = true;  // what the driver asked for (CONFIG_WCE); workers read it
};

}  // namespace ringway::blk
