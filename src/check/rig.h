// Rig: a front-end with memory and rings, for one check of a device at the request seam; nothing is retried
// or smoothed over. Used on one thread. vhost-user "Ring states".
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "ringway/check/finding.h"
#include "ringway/check/kind.h"
#include "ringway/check/shared_memory.h"
#include "ringway/check/target.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/catalogue.h"

namespace ringway::check {

using std::chrono::milliseconds;

struct Patience {
  milliseconds answer{5'000};  // for what must come
  milliseconds quiet{150};     // how long nothing must come
};

// An eventfd of ours, and the copies that are given away.
class Event {
 public:
  static Result<Event> make();
  [[nodiscard]] Result<UniqueFd> copy() const { return fd_.duplicate(); }
  void signal() const;
  [[nodiscard]] bool arrives(milliseconds within) const;  // and takes it

 private:
  explicit Event(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// What a device asks of its front-end, kept. Called on a thread of the channel.
class Inbox final : public vhost::FrontEnd {
 public:
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override;
  // Answers IOTLB misses; called on the channel's thread.
  std::function<void(const vhost::IotlbMessage&)> on_miss;
  [[nodiscard]] size_t count() const;
  template <class T>
  [[nodiscard]] size_t count_of() const {
    const std::scoped_lock lock(mutex_);
    size_t found = 0;
    for (const size_t index : seen_) found += index == vhost::index_of<vhost::FrontEndRequest, T> ? 1 : 0;
    return found;
  }
  [[nodiscard]] std::vector<vhost::IotlbMessage> faults() const;

 private:
  mutable std::mutex mutex_;
  std::vector<size_t> seen_;  // indexes of alternatives
  std::vector<vhost::IotlbMessage> faults_;
};

class Rig {
 public:
  static constexpr uint64_t memory_bytes = 1 << 20;
  static constexpr uint64_t slots_at = 512 << 10;  // in the memory; below are the rings
  static constexpr uint32_t slots = 128;
  static constexpr uint64_t ring_area = 64 << 10;
  static constexpr uint32_t usual_size = 64;  // entries
  static constexpr memory::GuestAddress guest_base{uint64_t{1} << 32};
  static constexpr memory::FrontEndAddress user_base{0x7000'0000'0000};

  struct Ring {
    vhost::RingIndex index = 0;
    ring::DriverConfig config;
    std::unique_ptr<ring::Driver> driver;  // never null, nor are these
    std::unique_ptr<Event> kick, call, err;
    std::map<uint16_t, uint32_t> slot_of_token;
    uint64_t added = 0;
    uint64_t taken = 0;
    uint64_t user_offset = 0;  // of its area, from the start of the memory
  };

  static Or<std::unique_ptr<Rig>> make(Target& target, const Kind& kind, const Patience& patience);
  Rig(std::unique_ptr<Lease> lease, vhost::Device& device, const Kind& kind, const Patience& patience,
      SharedMemory memory)
      : lease_(std::move(lease)),
        device_(device),
        kind_(kind),
        patience_(patience),
        memory_(std::move(memory)) {}

  [[nodiscard]] vhost::Device& device() { return device_; }
  [[nodiscard]] const Kind& kind() const { return kind_; }
  [[nodiscard]] const Patience& patience() const { return patience_; }
  [[nodiscard]] SharedMemory& memory() { return memory_; }
  [[nodiscard]] const vhost::Agreement& agreed() const { return agreed_; }
  [[nodiscard]] std::string transcript() const { return lease_ ? lease_->transcript() : std::string(); }

  // Returns when it is done: where nothing is acknowledged, when a question behind it is answered.
  template <class T>
  Result<typename T::Reply> ask(T request) {
    auto reply = vhost::call(device_, std::move(request));
    if constexpr (std::is_same_v<typename T::Reply, vhost::Done>) {
      if (!reply || acknowledges()) return reply;
      if (auto behind = vhost::call(device_, vhost::GetFeatures{}); !behind)
        return std::unexpected(behind.error());
    }
    return reply;
  }
  // Else a refusal is silent.
  [[nodiscard]] bool acknowledges() const {
    return lease_ ? lease_->acknowledges() : agreed_.has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
  }
  // A correct request on the way to what is checked.
  template <class T>
  Or<typename T::Reply> must(T request) {
    return reach(ask(std::move(request)),
                 vhost::catalogue<vhost::DeviceRequest>[vhost::index_of<vhost::DeviceRequest, T>].name);
  }

  // Offers are asked for and remembered; what is wanted of them is agreed on.
  struct Wanted {
    uint64_t features = 0;      // beside VERSION_1 and what the kind needs
    uint64_t capabilities = 0;  // of the device, not of the socket
    bool bit_30 = true;
    bool owner = true;
  };
  Or<> negotiate(const Wanted& wanted);
  Or<> negotiate() { return negotiate(Wanted{}); }
  // What was negotiated by other means.
  void assume(const vhost::Agreement& agreed, bool bit_30) {
    agreed_ = agreed;
    bit_30_ = bit_30;
  }
  [[nodiscard]] bool offers(unsigned feature) const { return (features_ & vhost::bit(feature)) != 0; }
  [[nodiscard]] bool can(unsigned capability) const { return (capabilities_ & vhost::bit(capability)) != 0; }
  [[nodiscard]] uint64_t offered_features() const { return features_; }

  Or<> share();  // all memory, by SET_MEM_TABLE
  // A driver half in its own part of the memory. `base`: as on the wire.
  Or<> make_ring(vhost::RingIndex index, uint32_t size = usual_size, std::optional<uint32_t> base = {});
  Or<> make_ring() { return make_ring(kind_.ring); }
  [[nodiscard]] Ring& ring(vhost::RingIndex index) { return *rings_.at(index); }
  [[nodiscard]] Ring& ring() { return ring(kind_.ring); }
  // SET_VRING_NUM, _BASE, _ADDR, _CALL and _ERR. The rings before that of requests are started with it,
  // empty: some devices wait for all that belong together.
  Or<> describe(Ring& ring);
  // As in SET_VRING_ADDR.
  [[nodiscard]] vhost::SetVringAddr addresses(const Ring& ring) const;
  // Requests lie here from now on; it outlives the rig's last request.
  void use_slots_in(SharedMemory& memory, uint64_t offset) {
    slots_memory_ = &memory;
    slots_offset_ = offset;
  }
  // Called again and again while something is awaited.
  void while_waiting(std::function<void()> work) { while_waiting_ = std::move(work); }
  Or<> set_kick(Ring& ring);
  Or<> enable(Ring& ring, bool on = true);
  Or<> start(Ring& ring);
  // Requests can be made; else not testable.
  Or<> needs_request() const;
  // From the beginning to a ring that runs, of a kind whose requests are known.
  Or<> set_up(const Wanted& wanted);
  Or<> set_up() { return set_up(Wanted{}); }

  enum class Kick : uint8_t { yes, no };
  Or<> add(Ring& ring, uint32_t count = 1, Kick kick = Kick::yes);
  // All that was added comes back, right and in time.
  Or<> take_all(Ring& ring);
  // How many have come back by now.
  Or<uint32_t> take_present(Ring& ring);
  // How many come back while nothing should.
  Or<uint32_t> take_for(Ring& ring, milliseconds time);
  Or<> serves(Ring& ring, uint32_t count = 1);
  Or<uint32_t> stop(Ring& ring);

 private:
  Or<bool> take_one(Ring& ring);
  Or<> describe_one(Ring& ring);
  Or<> start_companions();
  const std::unique_ptr<Lease> lease_;
  vhost::Device& device_;
  const Kind& kind_;
  const Patience patience_;
  SharedMemory memory_;
  SharedMemory* slots_memory_ = &memory_;
  uint64_t slots_offset_ = slots_at;
  std::function<void()> while_waiting_;
  uint64_t features_ = 0;
  uint64_t capabilities_ = 0;
  vhost::Agreement agreed_;
  bool bit_30_ = true;
  std::map<vhost::RingIndex, std::unique_ptr<Ring>> rings_;
  uint32_t next_slot_ = 0;
};

}  // namespace ringway::check
