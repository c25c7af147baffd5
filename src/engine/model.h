// Model: what a device's author implements; about ten functions, no sockets, no rings, no threads of its own.
// Thread rule: called by the control thread, one call at a time, except start_queue and what it returns,
// which belong to the queue's worker.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/engine/queue_loop.h"

namespace ringway::engine {

class Model {
 public:
  virtual ~Model() = default;

  // VIRTIO "Device Types".
  [[nodiscard]] virtual uint32_t device_id() const = 0;
  // The device's own feature bits. Those of rings and transport are the engine's.
  [[nodiscard]] virtual uint64_t features() const = 0;
  // What was agreed; before any queue starts and after every reset.
  virtual void set_features(uint64_t features) { (void)features; }
  [[nodiscard]] virtual uint16_t queue_count() const = 0;
  [[nodiscard]] virtual uint32_t max_queue_size() const { return 32768; }

  // The device configuration space, in the little-endian layout of VIRTIO. Offsets and sizes are checked by
  // the engine against config_size(). `restore`: a migrating front-end writes back what it read elsewhere,
  // read-only fields included.
  [[nodiscard]] virtual uint32_t config_size() const { return 0; }
  virtual void read_config(uint32_t offset, std::span<std::byte> to) const { (void)offset, (void)to; }
  virtual Result<> write_config(uint32_t offset, std::span<const std::byte> from, bool restore) {
    (void)offset, (void)from, (void)restore;
    return refused("configuration space is read-only");
  }

  // Worker's thread. The QueueLoop outlives what is returned.
  virtual std::unique_ptr<Queue> start_queue(QueueLoop& loop) = 0;
  // Queues with the same number here share a worker.
  [[nodiscard]] virtual uint16_t worker_of(uint16_t queue) const { return queue; }
  // vhost-user "Ring states": a ring that is started and disabled is processed without side effects. True:
  // this queue runs then, with QueueLoop::enabled() false. False: whatever it could do would be one.
  [[nodiscard]] virtual bool runs_disabled(uint16_t queue) const { return (void)queue, false; }
  // Chains of a queue are used in the order in which they were available, agreed upon or not. Then the used
  // index of a split ring says where to go on when a back-end has gone without telling, and front-ends that
  // live on know no better (DPDK's virtio-user begins at 0).
  [[nodiscard]] virtual bool uses_in_order() const { return false; }

  // False: front-ends in the field add each memory region to a device of this kind several times (QEMU before
  // 8.2, once for each pair of queues of a network device). Then they are offered whole tables only.
  [[nodiscard]] virtual bool has_one_memory_table() const { return true; }

  // Requests that only network devices have (NET_SET_MTU, SEND_RARP). The MTU is 68 to 65535.
  [[nodiscard]] virtual bool takes_mtu() const { return false; }
  virtual Result<> set_mtu(uint16_t mtu) { return (void)mtu, refused("not offered by this device"); }
  [[nodiscard]] virtual bool announces() const { return false; }
  virtual Result<> announce(const std::array<std::byte, 6>& mac) {
    return (void)mac, refused("not offered by this device");
  }

  // The first queue is about to start, which an error prevents; the last one has stopped (vhost-user
  // "Suspended device state"): the disk, say, may be another process's next.
  virtual Result<> resume() { return {}; }
  virtual void suspend() {}

  // What a driver has set and another back-end must know to go on in its place, beside features, rings and
  // configuration space (vhost-user "Migrating back-end state"), as bytes with a version of their own; at
  // most 1 MiB. All queues are stopped. To load is all or nothing: what is wrong with it changes nothing.
  [[nodiscard]] virtual std::vector<std::byte> save_state() const { return {}; }
  virtual Result<> load_state(std::span<const std::byte> state) {
    if (!state.empty()) return refused("device state is not known", state.size());
    return {};
  }

  // All queues are stopped; forget everything that the driver has set.
  virtual void reset() {}

  // Set by the engine; the model calls it, from any thread, when its configuration space has changed.
  void on_config_change(std::function<void()> notify) { config_changed_ = std::move(notify); }

 protected:
  void config_changed() const {
    if (config_changed_) config_changed_();
  }

 private:
  std::function<void()> config_changed_;
};

}  // namespace ringway::engine
