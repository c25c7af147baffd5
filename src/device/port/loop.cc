#include "ringway/device/port/loop.h"

#include <algorithm>
#include <array>
#include <atomic>

namespace ringway::port {
namespace {

constexpr uint16_t max_pairs = 128;  // VIRTIO allows more, ringway::net does not

class LoopPort final : public Port {
 public:
  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop&, uint16_t pair) override {
    return std::make_unique<In>(*this, pair);
  }
  std::unique_ptr<Inlet> open_inlet(loop::Loop&, uint16_t pair, Receiver& receiver) override {
    return std::make_unique<Out>(*this, pair, receiver);
  }
  [[nodiscard]] std::vector<Counter> counters() const override {
    return {{"loop: dropped, no buffers", dropped_.load(std::memory_order_relaxed)}};
  }

  // There is nothing to give.
  [[nodiscard]] Result<HandedPort> hand_over() const override { return HandedPort{}; }

 private:
  class In final : public Outlet {
   public:
    In(LoopPort& port, uint16_t pair) : port_(port), receiver_(port.receivers_[pair % max_pairs]) {}
    Sent send(Frame& frame) override {
      if (receiver_ == nullptr || !receiver_->deliver(frame))
        port_.dropped_.fetch_add(1, std::memory_order_relaxed);
      return Sent::done;
    }
    void send_batch(std::span<Frame* const> frames, std::span<Sent> sent) override {
      std::ranges::fill(sent.first(frames.size()), Sent::done);
      while (!frames.empty()) {
        const size_t done = receiver_ == nullptr ? 0 : receiver_->deliver_batch(frames);
        if (done == frames.size()) return;
        port_.dropped_.fetch_add(1, std::memory_order_relaxed);
        frames = frames.subspan(done + 1);
      }
    }

   private:
    LoopPort& port_;
    Receiver* const& receiver_;
  };
  class Out final : public Inlet {
   public:
    Out(LoopPort& port, uint16_t pair, Receiver& receiver) : place_(port.receivers_[pair % max_pairs]) {
      place_ = &receiver;
    }
    ~Out() override { place_ = nullptr; }
    void resume() override {}

   private:
    Receiver*& place_;
  };

  // Nobody takes over work that a driver has left, so drivers are not offered to leave any.
  const Abilities abilities_{.pairs = max_pairs};
  std::array<Receiver*, max_pairs> receivers_{};  // each belongs to the loop of its pair
  std::atomic<uint64_t> dropped_ = 0;
};

}  // namespace

std::unique_ptr<Port> open_loop() { return std::make_unique<LoopPort>(); }

}  // namespace ringway::port
