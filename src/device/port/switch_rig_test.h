// What the tests of switches share: a guest with one or more pairs of queues, which counts what it gets.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "ringway/device/port/frames_test.h"
#include "ringway/device/port/switch.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/loop/loop_testing.h"

namespace ringway::port::test {

using loop::testing::eventually;

template <class T>
T value_of(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().to_string();
    std::abort();
  }
  return *std::move(result);
}

struct Arrived {
  Bytes bytes;
  Offload offload;
};

// One pair of queues on a loop. Frames that it sends live until they are done.
class Queues final : public Receiver {
 public:
  Queues(Port& port, loop::Loop& loop, uint16_t pair) : loop_(loop) {
    loop_.run([&] {
      outlet_ = port.open_outlet(loop_, pair);
      inlet_ = port.open_inlet(loop_, pair, *this);
    });
  }
  ~Queues() {
    stop_receiving();
    loop_.run([&] { outlet_->drain(); });
    EXPECT_TRUE(eventually([&] { return under_way == 0; }));
    loop_.run([&] { outlet_.reset(); });
  }
  void stop_receiving() {
    loop_.run([&] { inlet_.reset(); });
  }

  // From any other thread. In pieces of odd sizes behind the head.
  void send(const Bytes& bytes, const Offload& offload = {}) {
    loop_.run([&] { send_here(bytes, offload); });
  }
  void send_here(const Bytes& bytes, const Offload& offload = {}) {
    auto* own = new Own(*this, bytes, offload);
    ++under_way;
    note(*own, outlet_->send(*own));
  }
  // As a transmit queue does it.
  void send_batch(const std::vector<Arrived>& batch) {
    loop_.run([&] {
      std::vector<Frame*> frames;
      std::vector<Outlet::Sent> sent(batch.size());
      for (const Arrived& one : batch) frames.push_back(new Own(*this, one.bytes, one.offload));
      under_way += batch.size();
      for (size_t i = 0; i < batch.size(); i += Outlet::most_at_once) {
        const size_t count = std::min(batch.size() - i, Outlet::most_at_once);
        outlet_->send_batch(std::span(frames).subspan(i, count), std::span(sent).subspan(i, count));
      }
      for (size_t i = 0; i < batch.size(); ++i) note(static_cast<Own&>(*frames[i]), sent[i]);
    });
  }
  void send_batch(const std::vector<Bytes>& batch) {
    std::vector<Arrived> plain;
    for (const Bytes& bytes : batch) plain.push_back({bytes, {}});
    send_batch(plain);
  }
  void drain() {
    loop_.run([&] { outlet_->drain(); });
  }
  void give_buffers(size_t count) {
    loop_.run([&] {
      buffers += count;
      inlet_->resume();
    });
  }

  bool deliver(const Frame& frame) override {
    if (buffers == 0) return false;
    --buffers;
    if (keep) {
      const std::scoped_lock lock(mutex_);
      arrived_.push_back({flat(frame), frame.offload});
    }
    ++received;  // last: who waits for it finds the frame
    return true;
  }
  std::span<const iovec> reserve(uint32_t) override { return {}; }
  bool commit(const Offload&, uint32_t, std::span<const std::byte>) override { return false; }
  [[nodiscard]] uint64_t accepts() const override { return offloads; }

  // The next frame; empty if none comes.
  Arrived next() {
    if (!eventually([&] { return has_arrived(); })) return {};
    const std::scoped_lock lock(mutex_);
    Arrived one = std::move(arrived_.front());
    arrived_.pop_front();
    return one;
  }
  bool has_arrived() {
    const std::scoped_lock lock(mutex_);
    return !arrived_.empty();
  }
  // Whether nothing comes, with all that was sent before on any loop.
  bool is_silent() {
    for (int i = 0; i < 3; ++i) {
      loop_.run([] {});
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return !has_arrived();
  }
  loop::Loop& worker() { return loop_; }
  Inlet& inlet() { return *inlet_; }

  std::atomic<size_t> buffers = 1'000'000'000;
  std::atomic<uint64_t> offloads = 0;
  std::atomic<bool> keep = true;
  std::atomic<size_t> received = 0;
  std::atomic<size_t> under_way = 0;
  std::atomic<size_t> later = 0;

 private:
  struct Own : Frame {
    Own(Queues& its_queues, const Bytes& from, const Offload& its_offload) : queues(its_queues), bytes(from) {
      const size_t size_of_head = std::min<size_t>(bytes.size(), 60);
      offload = its_offload;
      length = static_cast<uint32_t>(bytes.size());
      head = std::span(bytes).first(size_of_head);
      for (size_t at = size_of_head, size = 1; at < bytes.size(); at += size, size = size * 3 + 1)
        places.push_back({.iov_base = &bytes[at], .iov_len = std::min(size, bytes.size() - at)});
      pieces = places;
      done = [](Frame& ended) { static_cast<Own&>(ended).end(); };
    }
    void end() {
      std::ranges::fill(bytes, std::byte{0xee});  // whoever looks at it now sees that
      Queues& owner = queues;
      delete this;
      --owner.under_way;
    }
    Queues& queues;
    Bytes bytes;
    std::vector<iovec> places;
  };
  void note(Own& own, Outlet::Sent sent) {
    if (sent == Outlet::Sent::done) {
      own.end();
    } else {
      ++later;
    }
  }

  loop::Loop& loop_;
  std::unique_ptr<Outlet> outlet_;
  std::unique_ptr<Inlet> inlet_;
  std::mutex mutex_;
  std::deque<Arrived> arrived_;
};

// A guest with one pair.
struct Guest {
  Guest(Switch& fabric, loop::Loop& loop, unsigned its_number, const StationOptions& options = {})
      : number(its_number), port(value_of(fabric.plug(options))), queues(*port, loop, 0) {}
  [[nodiscard]] Mac mac() const { return station_mac(number); }
  [[nodiscard]] Bytes frame_to(Mac to, const Bytes& payload = counting(100)) const {
    return ethernet(to, mac(), payload);
  }
  void send_to(const Guest& other, const Bytes& payload = counting(100)) {
    queues.send(frame_to(other.mac(), payload));
  }
  [[nodiscard]] uint64_t count(const std::string& name) const {
    for (const Counter& counter : port->counters()) {
      if (counter.name == name) return counter.value;
    }
    ADD_FAILURE() << "no counter " << name;
    return 0;
  }

  const unsigned number;
  const std::unique_ptr<Port> port;
  Queues queues;
};

}  // namespace ringway::port::test
