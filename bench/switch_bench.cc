// What the switch costs: one frame from a port to another of the same worker, copied once by the receiver, in
// batches of 32 that go to ports by turns. Reported per frame. Arguments: ports, bytes of a frame, addresses
// learned in all, bytes of buffers that each receiver walks through.
#include <benchmark/benchmark.h>

#include <array>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

#include "ringway/device/port/ethernet.h"
#include "ringway/device/port/switch.h"

namespace {

using namespace ringway;        // NOLINT(google-build-using-namespace)
using namespace ringway::port;  // NOLINT(google-build-using-namespace)

constexpr size_t batch = Outlet::most_at_once;

Mac mac_of(unsigned number) { return 0x02 | uint64_t{std::byteswap(number)} << 16; }

template <class T>
T must(Result<T> result) {
  if (!result) std::abort();
  return *std::move(result);
}

// Of this thread, in seconds.
double cpu_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// A device that copies what it gets into buffers of its own, one after the other.
class Guest final : public Receiver {
 public:
  Guest(Switch& fabric, loop::Loop& loop, size_t buffer_bytes, const StationOptions& options = {})
      : port_(must(fabric.plug(options))), buffers_(buffer_bytes), frames_(64 * stride) {
    outlet_ = port_->open_outlet(loop, 0);
    inlet_ = port_->open_inlet(loop, 0, *this);
  }
  bool deliver(const Frame& frame) override {
    if (at_ + frame.length > buffers_.size()) at_ = 0;
    fetched_ -= std::min<size_t>(fetched_, 64);
    std::byte* to = &buffers_[at_];
    std::memcpy(to, frame.head.data(), frame.head.size());
    to += frame.head.size();
    for (const iovec& piece : frame.pieces) {
      std::memcpy(to, piece.iov_base, piece.iov_len);
      to += piece.iov_len;
    }
    at_ += (frame.length + 63) / 64 * 64;
    return true;
  }
  std::span<const iovec> reserve(uint32_t) override { return {}; }
  bool commit(const Offload&, uint32_t, std::span<const std::byte>) override { return false; }
  [[nodiscard]] uint64_t accepts() const override { return 0; }

  void expect(size_t frames) override {
    for (; frames > 0; --frames) {
      const size_t at = at_ + std::exchange(fetched_, fetched_ + 64);
      __builtin_prefetch(&buffers_[at < buffers_.size() ? at : 0], 1);
    }
  }

  void send(Mac to, Mac from, uint32_t length) {
    add(to, from, length);
    send_all();
  }
  // Frames are sent as a transmit queue does it, by the batch.
  void add(Mac to, Mac from, uint32_t length) {
    std::byte* const bytes = &frames_[next_++ % 64 * stride];
    std::memcpy(bytes, &to, 6);
    std::memcpy(bytes + 6, &from, 6);
    const size_t head = std::min<size_t>(length, port_->abilities().head);
    pieces_[added_] = {.iov_base = bytes + head, .iov_len = length - head};
    batch_[added_] = {.length = length,
                      .head = {bytes, head},
                      .pieces = {&pieces_[added_], length > head ? size_t{1} : size_t{0}}};
    shown_[added_] = &batch_[added_];
    if (++added_ == batch) send_all();
  }
  void send_all() {
    outlet_->send_batch(std::span(shown_).first(added_), sent_);
    for (size_t i = 0; i < added_; ++i) {
      if (sent_[i] != Outlet::Sent::done) std::abort();
    }
    added_ = 0;
  }

 private:
  static constexpr size_t stride = 2048 + 64;
  const std::unique_ptr<Port> port_;
  std::vector<std::byte> buffers_;
  std::vector<std::byte> frames_;
  size_t at_ = 0;
  size_t next_ = 0;
  size_t fetched_ = 0;
  std::array<Frame, batch> batch_;
  std::array<iovec, batch> pieces_;
  std::array<Frame*, batch> shown_{};
  std::array<Outlet::Sent, batch> sent_{};
  size_t added_ = 0;
  std::unique_ptr<Outlet> outlet_;
  std::unique_ptr<Inlet> inlet_;
};

void forward(benchmark::State& state) {
  const auto ports = static_cast<unsigned>(state.range(0));
  const auto length = static_cast<uint32_t>(state.range(1));
  const auto macs = static_cast<unsigned>(state.range(2));
  const auto loop = must(loop::Loop::start({}));
  const auto fabric = Switch::make({});
  loop->run([&] {
    std::vector<std::unique_ptr<Guest>> guests;
    for (unsigned i = 0; i < ports; ++i)
      guests.push_back(std::make_unique<Guest>(*fabric, *loop, static_cast<size_t>(state.range(3))));
    for (unsigned i = 0; i < macs; ++i) guests[i % ports]->send(mac_of((i + 1) % macs), mac_of(i), length);
    unsigned sender = 0;
    unsigned to = 1;
    for (auto _ : state) {
      Guest& guest = *guests[sender % ports];
      for (size_t i = 0; i < batch; ++i, to += 7) {
        if (to % ports == sender % ports) ++to;  // not to itself
        guest.add(mac_of(to % macs), mac_of(sender % ports), length);
      }
      ++sender;
    }
  });
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * batch));
}

enum Storm : int64_t { calm, storm, limited };

// Of one turn of a worker after the other: a guest sends its batch to another, and a third one, if there is a
// storm, as much to everybody. What the first one's frames cost then is what is left to it. CPU time of the
// worker, per frame of the first one.
void beside_a_storm(benchmark::State& state) {
  constexpr size_t chains_a_turn = 128;  // that the engine takes of a queue
  const auto ports = static_cast<unsigned>(state.range(0));
  const auto length = static_cast<uint32_t>(state.range(1));
  const auto weather = static_cast<Storm>(state.range(2));
  const auto loop = must(loop::Loop::start({}));
  const auto fabric = Switch::make({});
  std::vector<std::unique_ptr<Guest>> guests;
  loop->run([&] {
    for (unsigned i = 0; i < ports; ++i) {
      const uint64_t limit = i == 2 && weather == limited ? 1000 : 0;
      guests.push_back(
          std::make_unique<Guest>(*fabric, *loop, size_t{64} << 10, StationOptions{.flood_pps = limit}));
    }
    for (unsigned i = 0; i < ports; ++i) guests[i]->send(mac_of((i + 1) % ports), mac_of(i), length);
  });
  for (auto _ : state) {
    loop->run([&] {
      const auto begin = cpu_time();
      for (size_t i = 0; i < chains_a_turn; ++i) guests[0]->add(mac_of(1), mac_of(0), length);
      for (size_t i = 0; i < chains_a_turn && weather != calm; ++i)
        guests[2]->add(broadcast_mac, mac_of(2), length);
      state.SetIterationTime(cpu_time() - begin);
    });
  }
  loop->run([&] { guests.clear(); });
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * chains_a_turn));
}

// What a frame costs without a switch: the same copy.
void copy_only(benchmark::State& state) {
  const auto length = static_cast<size_t>(state.range(0));
  std::vector<std::byte> from(64 * 2048);
  std::vector<std::byte> to(256 * 2048);
  size_t i = 0;
  for (auto _ : state) {
    for (size_t k = 0; k < batch; ++k, ++i) {
      std::memcpy(&to[i % 256 * 2048], &from[i % 64 * 2048], length);
      benchmark::ClobberMemory();
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * batch));
}

// 256 buffers of 2048 bytes each, as a receive queue has; and as many for all ports together.
void all(benchmark::internal::Benchmark* one) {
  constexpr int64_t all_buffers = int64_t{512} << 10;
  for (const int64_t length : {64, 1518}) {
    for (const int64_t ports : {2, 4, 8, 16, 32, 64}) one->Args({ports, length, ports, all_buffers / ports});
    for (const int64_t ports : {2, 64}) one->Args({ports, length, ports, all_buffers});
    one->Args({64, length, 4096, all_buffers / 64});
  }
}
BENCHMARK(forward)->Apply(all);
BENCHMARK(beside_a_storm)
    ->ArgNames({"ports", "bytes", "storm"})
    ->ArgsProduct({{3, 16, 64}, {64, 1518}, {calm, storm, limited}})
    ->UseManualTime();
BENCHMARK(copy_only)->Arg(64)->Arg(1518);

}  // namespace

BENCHMARK_MAIN();
