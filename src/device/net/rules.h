// Rules: what the driver has told the device about receiving, as one immutable value; and Rulebook, where
// queues find the present one. VIRTIO "Network Device / Control Virtqueue".
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "ringway/device/net/config.h"
#include "ringway/device/net/hash.h"
#include "ringway/engine/queue_loop.h"

namespace ringway::net {

// Which frames the driver wants to see.
struct Filter {
  static constexpr size_t table_limit = 64;  // addresses of each kind; of longer tables all pass

  struct Table {
    std::vector<Mac> macs;
    bool all = false;
    [[nodiscard]] bool holds(const Mac& mac) const;
  };

  // Until the driver says otherwise it sees everything.
  bool promiscuous = true;
  bool all_multicast = false;
  bool all_unicast = false;
  bool no_multicast = false;
  bool no_unicast = false;
  bool no_broadcast = false;
  bool by_vlan = false;  // VIRTIO_NET_F_CTRL_VLAN: tagged frames pass only if their VLAN was added
  Mac own{};
  Table unicast;
  Table multicast;
  std::bitset<4096> vlans;

  // `head`: the first bytes of a frame, at least an Ethernet header; with a tag 4 more.
  [[nodiscard]] bool passes(std::span<const std::byte> head) const;
};

// How frames are spread over receive queues.
struct Spread {
  uint32_t types = 0;                    // VIRTIO_NET_HASH_TYPE_* that are calculated
  bool reported = false;                 // by VIRTIO_NET_F_HASH_REPORT
  std::shared_ptr<const Toeplitz> hash;  // none: nothing is calculated
  // By VIRTIO_NET_F_RSS: the pair for each value of the hash's low bits. Empty: not by it.
  std::vector<uint16_t> table;
  uint16_t unclassified = 0;  // the pair of frames without a hash
  // Not by it, but the port brings frames to fewer pairs than there are: the device chooses.
  bool automatic = false;

  // The driver has said how; else it is the device's choice.
  [[nodiscard]] bool by_driver() const { return reported || !table.empty(); }
  // The pair that a frame belongs to which has arrived for pair `here` of a device with so many.
  [[nodiscard]] uint16_t pair_for(const HashResult& result, uint16_t here, uint16_t pairs) const;
};

struct Rules {
  uint64_t offloads = 0;  // GUEST_* that the driver accepts now
  uint16_t pairs = 0;     // of queues that receive; 0: as many as run
  Filter filter;
  Spread spread;
  // By VIRTIO_NET_F_NOTF_COAL.
  engine::CallModeration receive_calls;
  engine::CallModeration transmit_calls;

  // Nothing depends on what is in a frame.
  [[nodiscard]] bool blind() const { return filter.promiscuous && spread.hash == nullptr; }
};

// Any thread.
class Rulebook {
 public:
  [[nodiscard]] std::shared_ptr<const Rules> present() const {
    const std::scoped_lock lock(mutex_);
    return rules_;
  }
  // Grows with every replace(): a cheap way to see that present() has changed.
  [[nodiscard]] uint64_t edition() const { return edition_.load(std::memory_order_acquire); }
  // Of the present rules.
  [[nodiscard]] uint64_t offloads() const { return offloads_.load(std::memory_order_relaxed); }

  void replace(Rules rules) {
    auto next = std::make_shared<const Rules>(std::move(rules));
    const std::scoped_lock lock(mutex_);
    rules_ = std::move(next);
    offloads_.store(rules_->offloads, std::memory_order_relaxed);
    edition_.fetch_add(1, std::memory_order_release);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Rules> rules_ = std::make_shared<const Rules>();
  std::atomic<uint64_t> edition_ = 1;
  std::atomic<uint64_t> offloads_ = 0;
};

}  // namespace ringway::net
