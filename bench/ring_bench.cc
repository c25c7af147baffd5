// What a ring costs: a chain of three descriptors (16 readable bytes, 4096 and 1 writable) from add() to
// take_used(), with a device that reads the header and writes the status. Reported per chain. Arguments:
// batch (chains shown together, and the depth), indirect tables or direct chains, with or without an
// in-flight area.
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "ringway/memory/view.h"
#include "ringway/ring/driver.h"
#include "ringway/ring/ring.h"

namespace {

using namespace ringway;        // NOLINT(google-build-using-namespace)
using namespace ringway::ring;  // NOLINT(google-build-using-namespace)

constexpr uint32_t ring_size = 256;
constexpr uint64_t guest_base = 0x10'0000;
constexpr uint64_t memory_bytes = uint64_t{16} << 20;
constexpr uint64_t request_bytes = 8192;  // header, status and data lie on lines of their own
constexpr uint64_t requests_at = uint64_t{1} << 20;
constexpr uint64_t inflight_at = uint64_t{1} << 19;

struct Header {
  uint64_t words[2];
};

template <class T>
T must(Result<T> result) {
  if (!result) std::abort();
  return *std::move(result);
}

std::shared_ptr<const memory::Map> make_map() {
  UniqueFd fd(::memfd_create("ring bench", MFD_CLOEXEC));
  if (::ftruncate(fd.get(), memory_bytes) != 0) std::abort();
  auto region = must(memory::Region::open({{guest_base}, memory_bytes, {guest_base}, 0}, std::move(fd)));
  std::memset(region->data(), 0, memory_bytes);
  return must(memory::Map::of({std::move(region)}));
}

// Both halves of one ring of a fixed format.
template <class DeviceHalf, class DriverHalf>
struct Halves {
  explicit Halves(bool indirect, bool with_inflight = false)
      : map(make_map()),
        tracked(with_inflight),
        format{.packed = std::is_same_v<DeviceHalf, PackedRing>, .indirect = indirect, .event_idx = true},
        driver_config{.size = ring_size,
                      .format = format,
                      .table_entries = indirect ? 4U : 0U,
                      .area = map->regions()[0]->data(),
                      .address = {guest_base}},
        driver(must(make_driver(driver_config))),
        device(must(start(ring_config(), memory::View(map)))) {
    disable();
  }
  [[nodiscard]] RingConfig ring_config() const {
    const DriverLayout layout = driver_config.layout();
    RingConfig config{.size = ring_size, .format = format};
    const auto window = [&](uint64_t offset, uint64_t bytes) {
      return must(memory::Window::open(map, memory::FrontEndAddress{guest_base + offset}, bytes));
    };
    config.desc = window(layout.desc, RingConfig::desc_bytes(ring_size, format));
    config.driver = window(layout.driver, RingConfig::driver_bytes(ring_size, format));
    config.device = window(layout.device, RingConfig::device_bytes(ring_size, format));
    if (tracked) config.inflight = window(inflight_at, inflight_bytes(ring_size, format.packed));
    return config;
  }
  void disable() {
    front().disable_calls();
    back().disable_kicks();
  }
  DriverHalf& front() { return std::get<DriverHalf>(driver); }
  DeviceHalf& back() { return std::get<DeviceHalf>(device); }

  // Adds the request of a slot.
  void add(uint32_t slot) {
    const uint64_t at = guest_base + requests_at + slot * request_bytes;
    memory::store<uint64_t>(map->regions()[0]->data() + (at - guest_base), slot);
    const Buffer readable[] = {{{at}, 16}};
    const Buffer writable[] = {{{at + 4096}, 4096}, {{at + 64}, 1}};
    benchmark::DoNotOptimize(front().add({readable, writable}));
  }
  // Serves what is there; how much that was.
  uint32_t serve() {
    uint32_t count = 0;
    Chain chains[32];
    while (count < 32) {
      Result<Chain> popped = back().pop();
      if (!popped) std::abort();
      if (!*popped) break;
      chains[count++] = *std::move(popped);
    }
    for (uint32_t i = 0; i < count; ++i) {
      Header header;
      if (!chains[i].reader().read(header)) std::abort();
      benchmark::DoNotOptimize(header);
      Writer writer = chains[i].writer();
      writer.take_last_byte().write(0);
      back().push_used(std::move(chains[i]), 4097);
    }
    if (count > 0) benchmark::DoNotOptimize(back().publish());
    return count;
  }
  uint32_t take() {
    uint32_t count = 0;
    while (true) {
      const auto used = front().take_used();
      if (!used) std::abort();
      if (!*used) return count;
      ++count;
    }
  }

  std::shared_ptr<const memory::Map> map;
  bool tracked;
  Format format;
  DriverConfig driver_config;
  Driver driver;
  Ring device;
};

using Clock = std::chrono::steady_clock;

void report(benchmark::State& state, uint64_t chains, Clock::time_point begin) {
  const std::chrono::duration<double, std::nano> elapsed = Clock::now() - begin;
  state.counters["ns_per_chain"] = elapsed.count() / static_cast<double>(chains);
}

template <class DeviceHalf, class DriverHalf>
void one_thread(benchmark::State& state) {
  const auto batch = static_cast<uint32_t>(state.range(0));
  Halves<DeviceHalf, DriverHalf> halves(state.range(1) != 0, state.range(2) != 0);
  uint64_t chains = 0;
  const auto begin = Clock::now();
  for (auto _ : state) {
    for (uint32_t i = 0; i < batch; ++i) halves.add(i);
    benchmark::DoNotOptimize(halves.front().publish());
    while (halves.serve() > 0) {
    }
    chains += halves.take();
  }
  report(state, chains, begin);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
}

// The device polls on a core of its own. Every chain that comes back is added again, so `batch` chains are in
// flight.
template <class DeviceHalf, class DriverHalf>
void two_threads(benchmark::State& state) {
  const auto depth = static_cast<uint32_t>(state.range(0));
  Halves<DeviceHalf, DriverHalf> halves(state.range(1) != 0, state.range(2) != 0);
  std::atomic<bool> stop = false;
  std::thread device([&] {
    pin(1);
    while (!stop.load(std::memory_order_relaxed)) (void)halves.serve();
  });
  pin(0);
  uint64_t chains = 0;
  uint32_t next = 0;
  for (uint32_t i = 0; i < depth; ++i) halves.add(next++ % ring_size);
  benchmark::DoNotOptimize(halves.front().publish());
  const auto begin = Clock::now();
  for (auto _ : state) {
    uint32_t count = 0;
    while (count == 0) count = halves.take();
    for (uint32_t i = 0; i < count; ++i) halves.add(next++ % ring_size);
    benchmark::DoNotOptimize(halves.front().publish());
    chains += count;
  }
  report(state, chains, begin);
  stop = true;
  device.join();
}

constexpr auto cases = [](benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"batch", "indirect", "inflight"})->ArgsProduct({{1, 32}, {0, 1}, {0, 1}})->UseRealTime();
};
BENCHMARK(one_thread<SplitRing, SplitDriver>)->Apply(cases);
BENCHMARK(one_thread<PackedRing, PackedDriver>)->Apply(cases);
BENCHMARK(two_threads<SplitRing, SplitDriver>)->Apply(cases);
BENCHMARK(two_threads<PackedRing, PackedDriver>)->Apply(cases);

}  // namespace

BENCHMARK_MAIN();
