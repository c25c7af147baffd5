// The consumer: serves the device of docs/echo.cc as a program outside this project would, and is its
// front-end as well, over a socket, with a split ring laid out by hand.
#include <linux/virtio_config.h>
#include <poll.h>
#include <ringway/engine/workers.h>
#include <ringway/ring/layout.h>
#include <ringway/user/listener.h>
#include <ringway/user/remote.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <source_location>
#include <string>

#include "../../docs/echo.cc"

namespace {

constexpr uint64_t memory_size = 0x10000;
constexpr uint64_t front_end_base = 0x7f0000000000;  // where the front-end says that guest address 0 is
constexpr uint64_t desc_at = 0, avail_at = 0x1000, used_at = 0x2000, request_at = 0x3000, answer_at = 0x4000;
constexpr uint32_t ring_size = 4;

void check(bool condition, const char* what, std::source_location where = std::source_location::current()) {
  if (condition) return;
  std::fprintf(stderr, "%s:%u: %s\n", where.file_name(), where.line(), what);
  std::exit(1);
}

template <class T>
T take(Result<T> result, std::source_location where = std::source_location::current()) {
  if (!result) check(false, result.error().to_string().c_str(), where);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// A running queue with the guest's memory mapped.
struct Guest {
  UniqueFd memory{::memfd_create("guest", MFD_CLOEXEC)};
  UniqueFd kick = take(make_eventfd());
  UniqueFd call = take(make_eventfd());
  std::byte* base = nullptr;

  Guest() {
    check(::ftruncate(memory.get(), memory_size) == 0, "ftruncate");
    base = static_cast<std::byte*>(
        ::mmap(nullptr, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0));
    check(base != MAP_FAILED, "mmap");
  }
  template <class T>
  T* at(uint64_t address) {
    return reinterpret_cast<T*>(base + address);
  }

  void start(vhost::Device& device) {
    const uint64_t features = take(vhost::call(device, vhost::GetFeatures{}));
    check((features >> VIRTIO_F_VERSION_1 & 1) != 0, "the engine offers VERSION_1");
    take(vhost::call(device, vhost::SetFeatures{.features = uint64_t{1} << VIRTIO_F_VERSION_1}));
    std::vector<vhost::MemoryRegion> regions;
    regions.push_back(
        {.layout = {.size = memory_size, .front_end = {front_end_base}}, .fd = take(memory.duplicate())});
    take(vhost::call(device, vhost::SetMemTable{.regions = std::move(regions)}));
    take(vhost::call(device, vhost::SetVringNum{.ring = 0, .size = ring_size}));
    take(vhost::call(device, vhost::SetVringBase{.ring = 0, .base = 0}));
    take(vhost::call(device, vhost::SetVringAddr{.ring = 0,
                                                 .desc = front_end_base + desc_at,
                                                 .used = front_end_base + used_at,
                                                 .avail = front_end_base + avail_at}));
    take(vhost::call(device, vhost::SetVringCall{.ring = 0, .fd = take(call.duplicate())}));
    take(vhost::call(device, vhost::SetVringKick{.ring = 0, .fd = take(kick.duplicate())}));
  }

  // One request of two descriptors; returns how many bytes the device says it wrote.
  uint32_t ask(std::string_view request, uint32_t room) {
    std::memcpy(at<char>(request_at), request.data(), request.size());
    auto* desc = at<vring_desc>(desc_at);
    desc[0] = {.addr = request_at,
               .len = static_cast<uint32_t>(request.size()),
               .flags = VRING_DESC_F_NEXT,
               .next = 1};
    desc[1] = {.addr = answer_at, .len = room, .flags = VRING_DESC_F_WRITE, .next = 0};
    auto* avail = at<vring_avail>(avail_at);
    avail->ring[asked_ % ring_size] = 0;
    __atomic_store_n(&avail->idx, static_cast<uint16_t>(++asked_), __ATOMIC_RELEASE);
    check(::eventfd_write(kick.get(), 1) == 0, "kick");
    return await();
  }

 private:
  uint32_t await() {
    auto* used = at<vring_used>(used_at);
    while (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != static_cast<uint16_t>(asked_)) {
      pollfd called{.fd = call.get(), .events = POLLIN, .revents = 0};
      check(::poll(&called, 1, 10'000) == 1, "the device calls within ten seconds");
      eventfd_t events = 0;
      (void)::eventfd_read(call.get(), &events);
    }
    const vring_used_elem& last = used->ring[(asked_ - 1) % ring_size];
    check(last.id == 0, "the used chain is the one that was made available");
    return last.len;
  }
  unsigned asked_ = 0;
};

}  // namespace

int main() {
  char folder[] = "/tmp/echo.XXXXXX";
  check(::mkdtemp(folder) != nullptr, "mkdtemp");
  const std::string path = std::string(folder) + "/socket";

  auto workers = take(engine::Workers::start({.count = 1}));
  ServedEcho served(*workers);
  auto listener = take(user::Listener::start());
  take(listener->listen(path, served));

  // Two front-ends, one after the other.
  for (int visit = 0; visit < 2; ++visit) {
    auto device = take(user::RemoteDevice::connect(path));
    Guest guest;
    guest.start(*device);
    for (const std::string_view request : {"hello", "a longer request, with more to say", "x"}) {
      check(guest.ask(request, 4096) == request.size(), "as many bytes come back as went in");
      check(std::memcmp(guest.at<char>(answer_at), request.data(), request.size()) == 0,
            "the same bytes come back");
    }
    check(guest.ask("cut off", 3) == 3, "an answer ends where its buffer ends");
    const auto base = take(vhost::call(*device, vhost::GetVringBase{.ring = 0}));
    check(base.value == 4, "the stopped ring has taken four requests");
  }
  listener->stop();
  check(::rmdir(folder) == 0, "the listener has removed its socket");
  std::puts("echoed");
}
