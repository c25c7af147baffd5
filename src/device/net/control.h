// Control: what a driver commands, and its queue. Belongs to the worker of its queue. VIRTIO "Network Device
// / Control Virtqueue".
#pragma once

#include <functional>

#include "ringway/device/net/rules.h"
#include "ringway/engine/queue_loop.h"

namespace ringway::net {

// What commands are judged by, and what they change. The functions are called on the worker's thread.
struct Command {
  uint64_t features = 0;    // agreed
  uint16_t pairs = 1;       // of the device
  bool big_endian = false;  // a legacy driver of the other byte order
  Rulebook* rulebook = nullptr;
  std::function<void()> rules_changed;
  std::function<void(const Mac&)> set_mac;
  std::function<void()> announced;

  // Carries out what the driver has written: class, command and their data. VIRTIO_NET_OK or VIRTIO_NET_ERR;
  // after an error nothing has changed.
  [[nodiscard]] uint8_t execute(ring::Reader from) const;

 private:
  [[nodiscard]] bool has(unsigned feature) const;
  bool run(ring::Reader& from) const;
  bool set_mode(uint8_t mode, ring::Reader& from, Rules& rules) const;
  bool set_table(ring::Reader& from, Filter::Table& table) const;
  bool set_address(ring::Reader& from, Rules& rules) const;
  bool set_vlan(uint8_t command, ring::Reader& from, Rules& rules) const;
  bool set_pairs(ring::Reader& from, Rules& rules) const;
  bool set_spread(bool rss, ring::Reader& from, Rules& rules) const;
  bool set_coalescing(uint8_t command, ring::Reader& from, Rules& rules) const;
  bool set_offloads(ring::Reader& from, Rules& rules) const;
  bool change(uint8_t group, uint8_t command, ring::Reader& from, Rules& rules) const;
  template <class T>
  bool read(ring::Reader& from, T& value) const;
};

inline constexpr uint8_t VIRTIO_NET_OK = 0;
inline constexpr uint8_t VIRTIO_NET_ERR = 1;
inline constexpr uint16_t max_table = 128;  // entries of an indirection table
// us; a driver that wants to wait longer has mistaken the unit.
inline constexpr uint32_t longest_call_delay = 1'000'000;

class ControlQueue final : public engine::Queue {
 public:
  ControlQueue(engine::QueueLoop& loop, Command command) : loop_(loop), command_(std::move(command)) {}
  ~ControlQueue() override {
    if (on_end) on_end();
  }
  void process(ring::Chain chain) override;

  std::function<void()> on_end;  // called when the queue stops; may be none

 private:
  engine::QueueLoop& loop_;
  const Command command_;
};

}  // namespace ringway::net
