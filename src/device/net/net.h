// Net: a network device (VIRTIO "Network Device") over any port. Thread rule: as engine::Model; the queues
// belong to workers, those of a pair to the same.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ringway/device/net/announcement.h"
#include "ringway/device/net/config.h"
#include "ringway/device/net/drops.h"
#include "ringway/device/net/rules.h"
#include "ringway/device/net/team.h"
#include "ringway/device/port/port.h"
#include "ringway/engine/model.h"

namespace ringway::net {

class TransmitQueue;

class Net final : public engine::Model {
 public:
  struct Options {
    uint16_t pairs = 1;  // of queues, 1 to max_pairs
    Mac mac{};
    uint16_t mtu = 0;  // bytes, 68 to 65535; 0: none is told, unless the front-end sets one
  };
  static constexpr uint16_t max_pairs = 128;

  Net(std::unique_ptr<port::Port> port, const Options& options);
  ~Net() override;

  // Any thread.
  [[nodiscard]] std::vector<port::Counter> counters() const;

  [[nodiscard]] uint32_t device_id() const override;
  [[nodiscard]] uint64_t features() const override;
  void set_features(uint64_t features) override;
  // Pairs of receive and transmit queues, and the control queue.
  [[nodiscard]] uint16_t queue_count() const override {
    return static_cast<uint16_t>(2 * options_.pairs + 1);
  }
  [[nodiscard]] uint32_t config_size() const override { return sizeof(Config); }
  void read_config(uint32_t offset, std::span<std::byte> to) const override;
  Result<> write_config(uint32_t offset, std::span<const std::byte> from, bool restore) override;
  std::unique_ptr<engine::Queue> start_queue(engine::QueueLoop& loop) override;
  [[nodiscard]] uint16_t worker_of(uint16_t queue) const override { return queue / 2; }
  [[nodiscard]] bool runs_disabled(uint16_t queue) const override;
  [[nodiscard]] bool uses_in_order() const override { return true; }
  [[nodiscard]] bool has_one_memory_table() const override { return options_.pairs == 1; }
  [[nodiscard]] bool takes_mtu() const override { return true; }
  Result<> set_mtu(uint16_t mtu) override;
  [[nodiscard]] bool announces() const override { return true; }
  // By the driver itself where it can, else by a RARP frame on its behalf.
  Result<> announce(const std::array<std::byte, 6>& mac) override;
  [[nodiscard]] std::vector<std::byte> save_state() const override;
  Result<> load_state(std::span<const std::byte> bytes) override;
  void reset() override;
  // Live upgrade: what the port behind needs in another process.
  [[nodiscard]] Result<port::HandedPort> hand_over() const { return port_->hand_over(); }
  [[nodiscard]] Mac mac() const;

 private:
  enum class Role : uint8_t { receive, transmit, control };
  [[nodiscard]] Role role_of(uint16_t queue) const;
  [[nodiscard]] bool has(unsigned feature) const;
  [[nodiscard]] Config config() const;
  void limit_frames();
  [[nodiscard]] Rules first_rules() const;
  [[nodiscard]] Spread first_spread(uint64_t features) const;
  void wish();
  std::unique_ptr<engine::Queue> start_receive(engine::QueueLoop& loop, uint16_t pair);
  std::unique_ptr<engine::Queue> start_transmit(engine::QueueLoop& loop, uint16_t pair);
  std::unique_ptr<engine::Queue> start_control(engine::QueueLoop& loop);

  const std::unique_ptr<port::Port> port_;
  const Options options_;
  std::atomic<uint16_t> mtu_;
  std::atomic<uint32_t> longest_frame_ = 0;  // bytes that a driver may transmit at once
  uint64_t features_ = 0;                    // agreed
  // Agreed with the device whose state this one has, perhaps before the front-end says so here.
  std::optional<uint64_t> loaded_features_;
  std::atomic<bool> control_runs_ = false;
  std::atomic<bool> announce_ = false;  // the driver has been asked to, and has not said that it did
  mutable std::mutex mutex_;
  Mac mac_;  // guarded by mutex_
  // Of the first pair; null while it does not run. Set on its worker while the control thread starts or stops
  // it.
  TransmitQueue* transmitter_ = nullptr;
  loop::Loop* transmitter_worker_ = nullptr;
  Announcement announcement_;
  Rulebook rulebook_;
  Team team_{options_.pairs};
  Drops drops_;
};

}  // namespace ringway::net
