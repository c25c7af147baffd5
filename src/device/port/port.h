// Port: where a network device's frames go and come from: a tap, a switch, a file, nowhere. One Port per
// device. The device opens an Outlet for each running transmit queue and an Inlet for each running receive
// queue; those of one pair are on the same loop, so that nothing is locked on a frame's way. Thread rule: a
// Port may be asked by any thread; an Outlet or Inlet belongs to the thread of its loop, where it is opened,
// used and ended.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/device/port/frame.h"
#include "ringway/loop/loop.h"

namespace ringway::port {

// A running receive queue of the device, as a port sees it. On its loop's thread. What it was given is shown
// to the driver at the end of the loop's turn.
class Receiver {
 public:
  // Copies the frame, with its offload, into the driver's buffers. False: they do not suffice now; the port
  // keeps the frame or drops and counts it, and Inlet::resume() tells when it may try again. Frames that the
  // driver does not want, or that can never fit, are dropped and counted by the receiver, and true.
  virtual bool deliver(const Frame& frame) = 0;
  // Several in this order; how many of them were delivered, before the first for which deliver() would be
  // false.
  virtual size_t deliver_batch(std::span<const Frame* const> frames) {
    size_t done = 0;
    while (done < frames.size() && deliver(*frames[done])) ++done;
    return done;
  }
  // So many frames more may be delivered soon: their buffers can be fetched.
  virtual void expect(size_t frames) { (void)frames; }
  // For ports that can read straight into the driver's buffers: places for the first `bytes` of a frame;
  // fewer if there are fewer, none if there is no buffer at all. They stay reserved until the next call of
  // any function here.
  virtual std::span<const iovec> reserve(uint32_t bytes) = 0;
  // The first `length` bytes of what was reserved are a frame; if that was too little for it, `rest` is the
  // remainder, which is copied. False: it needs more buffers than there are, and is dropped, for the port to
  // count.
  virtual bool commit(const Offload& offload, uint32_t length, std::span<const std::byte> rest) = 0;
  // VIRTIO_NET_F_GUEST_* that delivered frames may make use of now. Others must be finished before.
  [[nodiscard]] virtual uint64_t accepts() const = 0;

 protected:
  ~Receiver() = default;
};

class Inlet {
 public:
  virtual ~Inlet() = default;
  // The receiver has buffers again after a deliver(), reserve() or commit() that failed.
  virtual void resume() = 0;
};

class Outlet {
 public:
  enum class Sent : uint8_t {
    done,   // the frame's bytes are not needed any more (sent, or dropped and counted)
    later,  // Frame::done will be called, never from inside send() or send_batch()
  };
  static constexpr size_t most_at_once = 32;  // frames
  virtual ~Outlet() = default;
  // The frame has been checked: its length, and its offload against it and what the port takes.
  virtual Sent send(Frame& frame) = 0;
  // Several in this order, at most `most_at_once`: what became of each is in its place of `sent`.
  virtual void send_batch(std::span<Frame* const> frames, std::span<Sent> sent) {
    for (size_t i = 0; i < frames.size(); ++i) sent[i] = send(*frames[i]);
  }
  // After a batch: what was gathered goes out.
  virtual void flush() {}
  // The device's queue is about to stop: every frame that is `later` ends soon, whatever has to be dropped.
  virtual void drain() {}
};

// What a port can carry. The device offers features accordingly.
struct Abilities {
  // Bits are VIRTIO_NET_F_* of the transmitting side (CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO,
  // HOST_USO): frames that the port takes with work left to do.
  uint64_t takes = 0;
  // The same for the receiving side (GUEST_CSUM, GUEST_TSO4, ...): what the port delivers if it is allowed
  // to.
  uint64_t gives = 0;
  uint16_t pairs =
      1;              // that it tells apart: inlets are opened for these, and the device steers to the others
  uint32_t head = 0;  // bytes that it wants as Frame::head, up to max_head
};

// What the port is told of the driver's side.
struct Wishes {
  uint64_t offloads = 0;  // GUEST_* bits that delivered frames may use
  uint16_t pairs = 1;     // in use by the driver
};

struct Link {
  bool up = true;
  uint32_t speed_mbps = 0;  // 0: unknown
};

// What a port needs to go on in another process, which is a port of the same kind there (live upgrade).
struct HandedPort {
  std::string words;          // of the port's own; what is unknown there is refused
  std::vector<UniqueFd> fds;  // shared with the port that is handed over, which may go on after all
};

// Named, for people: "dropped: no buffers" and the like.
struct Counter {
  std::string name;
  uint64_t value = 0;
};

class Port {
 public:
  virtual ~Port() = default;
  [[nodiscard]] virtual const Abilities& abilities() const = 0;
  // Any thread, one call at a time. Before any queue starts, and whenever the driver changes its mind.
  virtual Result<> wish(const Wishes& wishes) { return (void)wishes, Result<>(); }
  // On the thread of `loop`; the port, the loop and the receiver outlive what is returned. `pair` counts the
  // device's queues, so an outlet's may be more than `pairs`: it goes out where the port likes.
  virtual std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t pair) = 0;
  virtual std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) = 0;
  [[nodiscard]] virtual Link link() const { return {}; }
  // Any thread. What is opened from it in another process changes nothing that the two share until it opens
  // its first outlet or inlet, for this one may go on after all.
  [[nodiscard]] virtual Result<HandedPort> hand_over() const {
    return refused("a port of this kind cannot move to another process");
  }
  [[nodiscard]] virtual std::vector<Counter> counters() const { return {}; }

  // `notify` is called from any thread whenever link() has changed, and not after this returns.
  void on_link_change(std::function<void()> notify) {
    const std::scoped_lock lock(link_mutex_);
    link_changed_ = std::move(notify);
  }

 protected:
  void link_changed() const {
    const std::scoped_lock lock(link_mutex_);
    if (link_changed_) link_changed_();
  }

 private:
  mutable std::mutex link_mutex_;
  std::function<void()> link_changed_;
};

}  // namespace ringway::port
