#include "ringway/device/port/null.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "ringway/device/port/virtio_net.h"

namespace ringway::port {
namespace {

constexpr unsigned frames_per_turn = 64;  // that a source delivers

// Every byte is loaded, whatever becomes of it; that nothing does must not make the loads superfluous.
void read_all(const std::byte* from, size_t length) {
  using Block = uint64_t __attribute__((vector_size(16), aligned(1), may_alias));
  Block sum{};
  for (; length >= sizeof sum; from += sizeof sum, length -= sizeof sum) {
    sum ^= *reinterpret_cast<const Block*>(from);
  }
  Block last{};
  if (length > 0) std::memcpy(&last, from, length);
  sum ^= last;
  asm volatile("" : : "x"(sum) : "memory");
}

class NullOutlet final : public Outlet {
 public:
  Sent send(Frame& frame) override {
    read_all(frame.head.data(), frame.head.size());
    for (const iovec& piece : frame.pieces) {
      read_all(static_cast<const std::byte*>(piece.iov_base), piece.iov_len);
    }
    return Sent::done;
  }
};

// Nothing ever arrives.
class SilentInlet final : public Inlet {
 public:
  void resume() override {}
};

// Frames from one locally administered address to another, of a type for experiments (IEEE 802, 0x88b5).
class Source final : public Inlet, private loop::Source {
 public:
  Source(loop::Loop& loop, Receiver& receiver, uint32_t length)
      : loop_(loop), receiver_(receiver), bytes_(length) {
    static constexpr unsigned char header[min_frame] = {0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5};
    std::memcpy(bytes_.data(), header, sizeof header);
    frame_.length = length;
    frame_.pieces = {&piece_, 1};
    loop_.add(*this);
  }
  ~Source() override { loop_.remove(*this); }
  void resume() override { loop_.wake(*this); }

 private:
  bool poll() override {
    unsigned count = 0;
    while (count < frames_per_turn && receiver_.deliver(frame_)) ++count;
    return count > 0;
  }
  bool park() override { return true; }
  void unpark() override {}

  loop::Loop& loop_;
  Receiver& receiver_;
  std::vector<std::byte> bytes_;
  iovec piece_{.iov_base = bytes_.data(), .iov_len = bytes_.size()};
  Frame frame_;
};

class NullPort final : public Port {
 public:
  explicit NullPort(const NullOptions& options) : options_(options) {}
  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop&, uint16_t) override {
    return std::make_unique<NullOutlet>();
  }
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t, Receiver& receiver) override {
    if (options_.send == 0) return std::make_unique<SilentInlet>();
    return std::make_unique<Source>(loop, receiver, options_.send);
  }

  // There is nothing to give.
  [[nodiscard]] Result<HandedPort> hand_over() const override { return HandedPort{}; }

 private:
  const NullOptions options_;
  // It takes work as well as frames: neither gets anywhere.
  const Abilities abilities_{.takes = transmit_offloads, .pairs = UINT16_MAX};
};

}  // namespace

std::unique_ptr<Port> open_null(const NullOptions& options) { return std::make_unique<NullPort>(options); }

}  // namespace ringway::port
