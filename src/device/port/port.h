// Port: where a network device's frames go and come from: a tap, a switch, a file, nowhere. One Port per device.
// The device opens an Outlet for each running transmit queue and an Inlet for each running receive queue, so that
// nothing is locked on a frame's way. Thread rule: a Port may be asked by any thread; an Outlet or Inlet belongs to
// the thread of its loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/device/port/frame.h"
#include "ringway/loop/loop.h"

namespace ringway::port {

// A running receive queue of the device, as a port sees it. On its loop's thread.
class Receiver {
 public:
  // Copies the frame, with its offload, into the driver's buffers. False: they do not suffice now; the port keeps
  // the frame or drops and counts it. Frames that can never fit are counted by the receiver, and true.
  virtual bool deliver(const Frame& frame) = 0;
  // For ports that can read straight into the driver's buffers: places for a frame of up to `bytes`; fewer bytes if
  // fewer are there (the frame may then not fit: what the port reads must not be longer), none if no buffer is. Stays
  // reserved until the next call of any function here.
  virtual std::span<const iovec> reserve(uint32_t bytes) = 0;
  // `length` bytes of what was reserved are a frame.
  virtual void commit(const Offload& offload, uint32_t length) = 0;
  // After a batch: shows the driver what was delivered.
  virtual void flush() = 0;

 protected:
  ~Receiver() = default;
};

class Inlet {
 public:
  virtual ~Inlet() = default;
  // The receiver has buffers again after a deliver() or reserve() that failed.
  virtual void resume() = 0;
};

class Outlet {
 public:
  enum class Sent : uint8_t {
    done,   // the frame's bytes are not needed any more (sent, or dropped and counted)
    later,  // Frame::done will be called, never from inside send()
  };
  virtual ~Outlet() = default;
  virtual Sent send(Frame& frame) = 0;
  // After a batch: what was gathered goes out.
  virtual void flush() {}
  // The device's queue is about to stop: every frame that is `later` ends soon, whatever has to be dropped.
  virtual void drain() {}
};

// What a port can carry. The device offers features accordingly.
struct Abilities {
  // Bits are VIRTIO_NET_F_* of the transmitting side (CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO, HOST_USO):
  // frames that the port takes with work left to do.
  uint64_t takes = 0;
  // The same for the receiving side (GUEST_CSUM, GUEST_TSO4, ...): what the port delivers if it is allowed to.
  uint64_t gives = 0;
  uint16_t max_pairs = 1;  // of queues that can be told apart; more are served by the device's own steering
};

// What the port is told of the driver's side. Control thread.
struct Wishes {
  uint64_t offloads = 0;           // GUEST_* bits that delivered frames may use
  uint16_t pairs = 1;              // in use
};

struct Link {
  bool up = true;
  uint32_t speed_mbps = 0;  // 0: unknown
};

class Port {
 public:
  virtual ~Port() = default;

  [[nodiscard]] virtual const Abilities& abilities() const = 0;
  virtual Result<> wish(const Wishes& wishes) { return (void)wishes, Result<>(); }

  // On the thread of `loop`; the port outlives both.
  virtual std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t pair) = 0;
  virtual std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) = 0;

  [[nodiscard]] virtual Link link() const { return {}; }
  // Called from any thread whenever link() has changed.
  void on_link_change(std::function<void()> notify) { link_changed_ = std::move(notify); }

  // Named counters for people: "dropped: no buffers" and the like. Any thread.
  struct Counter {
    std::string name;
    uint64_t value = 0;
  };
  [[nodiscard]] virtual std::vector<Counter> counters() const { return {}; }

 protected:
  void link_changed() const {
    if (link_changed_) link_changed_();
  }

 private:
  std::function<void()> link_changed_;
};

}  // namespace ringway::port
