// What a frame from guest to guest costs the worker of a switch, with real rings: the driver halves of all
// guests are on another CPU, so that every descriptor, header and frame comes from there, as it does in
// service. A round: each driver takes what it got, gives the buffers back and adds 32 frames; then the worker
// has one turn over all queues. Reported: CPU time of the worker per frame. Arguments: ports, bytes of a
// frame, frames in a row that go to the same port, whether the guests have huge pages (of which there must be
// one for each port: /proc/sys/vm/nr_hugepages).
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

#include "ringway/device/net/net.h"
#include "ringway/device/port/switch.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/engine/queue_loop.h"
#include "ringway/memory/view.h"
#include "ringway/ring/driver.h"
#include "ringway/ring/ring.h"

namespace {

using namespace ringway;  // NOLINT(google-build-using-namespace)

constexpr uint32_t ring_entries = 256;
constexpr uint32_t burst = 32;  // frames of a guest in a round
constexpr uint32_t buffer_bytes = 2048;
constexpr uint64_t guest_base = 0x10'0000;
constexpr uint64_t ring_bytes = uint64_t{16} << 10;
constexpr uint64_t queue_bytes = ring_bytes + uint64_t{ring_entries} * buffer_bytes;
constexpr uint64_t accepted = uint64_t{1} << 32 | port::bit(port::VIRTIO_NET_F_MRG_RXBUF);  // VERSION_1

template <class T>
T must(Result<T> result) {
  if (!result) std::abort();
  return *std::move(result);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
}

// Of this thread, in seconds.
double cpu_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

port::Mac mac_of(unsigned number) { return 0x02 | uint64_t{std::byteswap(number)} << 16; }

// One queue: the driver's half on the main thread, the device's half on the worker, whose turns are made by
// hand.
class BenchQueue final : public engine::QueueLoop {
 public:
  BenchQueue(loop::Loop& worker, const std::shared_ptr<const memory::Map>& map, uint16_t index)
      : worker_(worker),
        index_(index),
        at_(index * queue_bytes),
        bytes_(map->regions()[0]->data() + at_),
        config_{.size = ring_entries, .area = bytes_, .address = {guest_base + at_}},
        front_(must(ring::make_driver(config_))),
        back_(must(ring::start(ring_config(map), memory::View(map)))) {
    std::get<ring::SplitDriver>(front_).disable_calls();
    device().disable_kicks();
  }
  void start(engine::Model& model) { queue_ = model.start_queue(*this); }
  void stop() {
    queue_->drain();
    queue_.reset();
  }

  // Of the driver.
  ring::SplitDriver& driver() { return std::get<ring::SplitDriver>(front_); }
  std::byte* buffer(uint16_t token) { return bytes_ + ring_bytes + uint64_t{token} * buffer_bytes; }
  void add(uint32_t length, bool is_writable) {
    const uint64_t offset = at_ + ring_bytes + uint64_t{driver().next_token()} * buffer_bytes;
    const ring::Buffer buffer{.address = {guest_base + offset}, .length = length};
    const std::span<const ring::Buffer> one(&buffer, 1);
    const std::span<const ring::Buffer> none;
    if (!driver().add({is_writable ? none : one, is_writable ? one : none})) std::abort();
  }

  // Of the device.
  void turn() {
    size_t count = 1;
    for (size_t total = 0; total < turn_chains && count > 0; total += count) {
      count = pop();
      queue_->process_batch(std::span(chains_).first(count));
    }
    queue_->flush();
    publish();
  }
  void publish() { benchmark::DoNotOptimize(device().publish()); }
  void complete(ring::Chain chain, uint32_t written) override {
    device().push_used(std::move(chain), written);
  }
  void complete_unwritten(std::span<ring::Chain> chains) override { device().push_used(chains); }
  bool take_available() override {
    const size_t count = pop();
    queue_->process_batch(std::span(chains_).first(count));
    return count > 0;
  }
  void give_back(ring::Chain chain) override { device().push_back(std::move(chain)); }
  void fail(ring::Chain, Error) override { std::abort(); }
  [[nodiscard]] loop::Loop& worker() override { return worker_; }
  [[nodiscard]] uint16_t index() const override { return index_; }
  [[nodiscard]] uint32_t ring_size() const override { return ring_entries; }
  [[nodiscard]] uint64_t features() const override { return accepted; }
  [[nodiscard]] bool big_endian() const override { return false; }

 private:
  static constexpr size_t turn_chains = 128;  // that the engine takes of a queue
  // As many as there are, and as a batch of the engine holds.
  size_t pop() {
    size_t count = 0;
    const std::span room = std::span(chains_).first(std::min(chains_.size(), queue_->appetite()));
    while (count < room.size()) {
      const size_t more = must(device().pop(room.subspan(count)));
      if (more == 0) break;
      count += more;
    }
    return count;
  }
  ring::SplitRing& device() { return std::get<ring::SplitRing>(back_); }
  [[nodiscard]] ring::RingConfig ring_config(const std::shared_ptr<const memory::Map>& map) const {
    const ring::DriverLayout layout = config_.layout();
    ring::RingConfig config{.size = ring_entries};
    const auto window = [&](uint64_t offset, uint64_t bytes) {
      return must(memory::Window::open(map, memory::FrontEndAddress{guest_base + at_ + offset}, bytes));
    };
    config.desc = window(layout.desc, ring::RingConfig::desc_bytes(ring_entries, {}));
    config.driver = window(layout.driver, ring::RingConfig::driver_bytes(ring_entries, {}));
    config.device = window(layout.device, ring::RingConfig::device_bytes(ring_entries, {}));
    return config;
  }

  loop::Loop& worker_;
  const uint16_t index_;
  const uint64_t at_;  // in the memory
  std::byte* const bytes_;
  const ring::DriverConfig config_;
  ring::Driver front_;
  ring::Ring back_;
  std::array<ring::Chain, 32> chains_;
  std::unique_ptr<engine::Queue> queue_;
};

class Guest {
 public:
  Guest(port::Switch& fabric, loop::Loop& worker, bool huge_pages)
      : map_(make_map(huge_pages)),
        net_(must(fabric.plug({})), {.pairs = 1}),
        receiver_(worker, map_, 0),
        transmitter_(worker, map_, 1) {
    net_.set_features(accepted);
    worker.run([this] {
      receiver_.start(net_);
      transmitter_.start(net_);
    });
    for (uint32_t i = 0; i < ring_entries; ++i) receiver_.add(buffer_bytes, true);
    benchmark::DoNotOptimize(receiver_.driver().publish());
  }
  void stop() {
    transmitter_.stop();
    receiver_.stop();
  }

  // Of the driver. How many frames came.
  uint32_t take() {
    uint32_t count = 0;
    while (const auto used = must(receiver_.driver().take_used())) {
      benchmark::DoNotOptimize(*receiver_.buffer(used->token));
      ++count;
    }
    for (uint32_t i = 0; i < count; ++i) receiver_.add(buffer_bytes, true);
    benchmark::DoNotOptimize(receiver_.driver().publish());
    while (must(transmitter_.driver().take_used())) {
    }
    return count;
  }
  void add(port::Mac to, port::Mac from, uint32_t length) {
    std::byte* const bytes = transmitter_.buffer(transmitter_.driver().next_token());
    std::memset(bytes, 0, port::plain_header);
    std::memcpy(bytes + port::plain_header, &to, 6);
    std::memcpy(bytes + port::plain_header + 6, &from, 6);
    transmitter_.add(port::plain_header + length, false);
  }
  void show() { benchmark::DoNotOptimize(transmitter_.driver().publish()); }

  // Past all rings, for the bound below.
  std::byte* sent(uint16_t number) { return transmitter_.buffer(number); }
  std::byte* received(uint16_t number) { return receiver_.buffer(number); }

  // Of the worker.
  void turn() {
    receiver_.turn();
    transmitter_.turn();
  }
  void publish() { receiver_.publish(); }

 private:
  static std::shared_ptr<const memory::Map> make_map(bool huge_pages) {
    constexpr uint64_t bytes = uint64_t{2} << 20;
    static_assert(bytes >= 2 * queue_bytes);
    UniqueFd fd(::memfd_create("switch bench", MFD_CLOEXEC | (huge_pages ? MFD_HUGETLB : 0U)));
    if (::ftruncate(fd.get(), bytes) != 0) std::abort();
    auto region = must(memory::Region::open({{guest_base}, bytes, {guest_base}, 0}, std::move(fd)));
    std::memset(region->data(), 0, bytes);
    return must(memory::Map::of({std::move(region)}));
  }

  const std::shared_ptr<const memory::Map> map_;
  net::Net net_;
  BenchQueue receiver_;
  BenchQueue transmitter_;
};

void guest_to_guest(benchmark::State& state) {
  const auto ports = static_cast<unsigned>(state.range(0));
  const auto length = static_cast<uint32_t>(state.range(1));
  const auto in_a_row = static_cast<unsigned>(state.range(2));
  pin(1);
  const auto worker = must(loop::Loop::start({.cpu = 0}));
  const auto fabric = port::Switch::make({});
  std::vector<std::unique_ptr<Guest>> guests;
  for (unsigned i = 0; i < ports; ++i)
    guests.push_back(std::make_unique<Guest>(*fabric, *worker, state.range(3) != 0));
  const auto turns = [&] {
    double seconds = 0;
    worker->run([&] {
      const double begin = cpu_time();
      for (const auto& guest : guests) guest->turn();
      for (const auto& guest : guests) guest->publish();
      seconds = cpu_time() - begin;
    });
    return seconds;
  };
  // Everybody becomes known.
  for (unsigned i = 0; i < ports; ++i) {
    guests[i]->add(port::broadcast_mac, mac_of(i), length);
    guests[i]->show();
  }
  turns();
  for (const auto& guest : guests) guest->take();
  unsigned step = 0;
  const auto send_all = [&] {
    for (unsigned i = 0; i < ports; ++i) {
      for (unsigned k = 0; k < burst; ++k) {
        // To each in turn, beginning with another one each time, so that everybody gets as much.
        const unsigned to = (i + 1 + (k / in_a_row + step) % (ports - 1)) % ports;
        guests[i]->add(mac_of(to), mac_of(i), length);
      }
      guests[i]->show();
    }
    step += burst / in_a_row;
  };
  const auto take_all = [&] {
    uint64_t count = 0;
    for (const auto& guest : guests) count += guest->take();
    return count;
  };
  // Until each ring entry has been used, so that no page is new.
  for (uint32_t i = 0; i < 2 * ring_entries / burst; ++i) {
    send_all();
    turns();
    take_all();
  }
  uint64_t frames = 0;
  for (auto _ : state) {
    send_all();
    state.SetIterationTime(turns());
    frames += take_all();
  }
  worker->run([&] {
    for (const auto& guest : guests) guest->stop();
  });
  if (frames != static_cast<uint64_t>(state.iterations()) * burst * ports)
    state.SkipWithError("frames were lost");
  state.SetItemsProcessed(static_cast<int64_t>(frames));
}

// The bound: the same frames are written, copied and read in the same memory, without rings and without a
// switch.
void copies_alone(benchmark::State& state) {
  const auto ports = static_cast<unsigned>(state.range(0));
  const auto bytes = port::plain_header + static_cast<size_t>(state.range(1));
  pin(1);
  const auto worker = must(loop::Loop::start({.cpu = 0}));
  const auto fabric = port::Switch::make({});
  std::vector<std::unique_ptr<Guest>> guests;
  for (unsigned i = 0; i < ports; ++i)
    guests.push_back(std::make_unique<Guest>(*fabric, *worker, state.range(3) != 0));
  uint32_t round = 0;
  const auto each = [&](auto&& act) {
    for (unsigned i = 0; i < ports; ++i) {
      for (uint32_t k = 0; k < burst; ++k)
        act(*guests[i], *guests[(i + 1 + k % (ports - 1)) % ports],
            static_cast<uint16_t>((round * burst + k) % ring_entries));
    }
  };
  const auto copy = [&] {
    double seconds = 0;
    worker->run([&] {
      const double begin = cpu_time();
      each([&](Guest& from, Guest& to, uint16_t at) { std::memcpy(to.received(at), from.sent(at), bytes); });
      seconds = cpu_time() - begin;
    });
    return seconds;
  };
  const auto one_round = [&] {
    each([](Guest& from, Guest&, uint16_t at) { std::memset(from.sent(at), at, port::plain_header + 12); });
    const double seconds = copy();
    each([](Guest&, Guest& to, uint16_t at) { benchmark::DoNotOptimize(*to.received(at)); });
    ++round;
    return seconds;
  };
  while (round < 2 * ring_entries / burst) one_round();
  for (auto _ : state) state.SetIterationTime(one_round());
  worker->run([&] {
    for (const auto& guest : guests) guest->stop();
  });
  state.SetItemsProcessed(state.iterations() * burst * ports);
}

BENCHMARK(copies_alone)
    ->ArgNames({"ports", "bytes", "in_a_row", "huge"})
    ->ArgsProduct({{2, 64}, {64, 1514}, {1}, {0, 1}})
    ->UseManualTime();
BENCHMARK(guest_to_guest)
    ->ArgNames({"ports", "bytes", "in_a_row", "huge"})
    ->ArgsProduct({{2, 4, 8, 16, 32, 64}, {64, 1514}, {1, 32}, {0, 1}})
    ->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
