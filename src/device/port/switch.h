// Switch: a learning Ethernet switch between devices, and with the ports behind uplinks. A frame between two
// devices of one worker is copied once, from the sender's buffers into the receiver's; between workers only a
// note of it travels. IEEE 802.1Q. Any thread; the queues of its ports belong to their workers.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ringway/device/port/mac_table.h"
#include "ringway/device/port/port.h"
#include "ringway/device/port/station.h"

namespace ringway::port {

class Switch : public std::enable_shared_from_this<Switch> {
 public:
  static constexpr size_t max_stations = 1024;
  static constexpr size_t max_crossings = 1024;

  struct Options {
    size_t mac_limit = 16384;  // addresses learned at most
    uint32_t ageing_seconds = 300;
  };
  static std::shared_ptr<Switch> make(const Options& options);
  ~Switch();

  // A port for a device, unplugged by its end.
  Result<std::unique_ptr<Port>> plug(const StationOptions& options);

  // For the parts of the switch.
  Result<Station*> add_station(const StationOptions& options);
  void remove_station(const Station& station);
  // On the loop's thread.
  Result<Crossing*> crossing_on(loop::Loop& loop);
  [[nodiscard]] MacTable& macs() { return macs_; }
  [[nodiscard]] Station* station(uint16_t number) {
    return stations_[number].load(std::memory_order_acquire);
  }
  [[nodiscard]] Station* mirror() { return mirror_.load(std::memory_order_acquire); }
  [[nodiscard]] size_t crossing_count() const { return crossing_count_.load(std::memory_order_acquire); }
  [[nodiscard]] Crossing& crossing(size_t index) { return *crossings_[index]; }

 private:
  explicit Switch(const Options& options);

  MacTable macs_;
  std::array<std::atomic<Station*>, max_stations> stations_{};  // null: not there, or not any more
  std::array<std::unique_ptr<Crossing>, max_crossings> crossings_;
  std::atomic<size_t> crossing_count_ = 0;
  std::atomic<Station*> mirror_ = nullptr;
  std::mutex mutex_;  // of adding and removing
  std::vector<std::unique_ptr<Station>> all_stations_;
};

}  // namespace ringway::port
