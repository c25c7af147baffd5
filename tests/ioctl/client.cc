// A program that uses a vhost-net device by plain system calls, and knows nothing of who serves it.
//   client rules DEVICE         the errnos of the kernel's interface
//   client newer DEVICE         ioctls that Linux 6.1 does not have
//   client sharing DEVICE       fork, dup and close in other threads
//   client paths DEVICE         what the file system says of a device in /dev, by all of its names
//   client host DEVICE          the same of a path that the C library leaves to the host
//   client misuse DEVICE        calls that fail, and those of a child that shares our memory
//   client frames DEVICE COUNT  frames that come back, where the device is a loop
//   client hold DEVICE          a device whose rings run, until a signal comes
//   client session DEVICE COUNT the same by Ringway's own client of the interface
// Exit status 0 if all is as the kernel has it; else every difference is a line.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/kernel/kernel_device.h"
#include "ringway/kernel/uapi.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/contract.h"
#include "ringway/vhost/session.h"

namespace {

using namespace ringway;  // NOLINT(google-build-using-namespace): a test program

int differences = 0;

void expect(long got, long wanted, const char* what, int line) {
  if (got == wanted) return;
  std::printf("line %d: %s: %ld instead of %ld\n", line, what, got, wanted);
  ++differences;
}
#define EXPECT(call, wanted) expect((call), (wanted), #call, __LINE__)

// Minus an errno, or what the call returns.
template <class... Arguments>
long control(int fd, unsigned long request, Arguments... arguments) {
  const int result = ::ioctl(fd, request, arguments...);
  return result < 0 ? -errno : result;
}
template <class T>
long give(int fd, unsigned long request, T value) {
  return control(fd, request, &value);
}
long state(int fd, unsigned long request, unsigned index, unsigned number) {
  return give(fd, request, vhost_vring_state{.index = index, .num = number});
}
long file(int fd, unsigned long request, unsigned index, int number) {
  return give(fd, request, vhost_vring_file{.index = index, .fd = number});
}
long result_of(ssize_t result) { return result < 0 ? -errno : result; }

struct Table {
  uint32_t count = 0;
  uint32_t padding = 0;
  std::array<vhost_memory_region, 2> regions{};
};

constexpr size_t memory_size = 4 << 20;
constexpr uint64_t guest_base = 0x1'0000'0000;
constexpr uint64_t user_base = 0x7000'0000'0000;  // of a front-end that is not this process

std::byte* make_memory() {
  const int fd = ::memfd_create("client", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, memory_size) != 0) std::exit(2);
  void* at = ::mmap(nullptr, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) std::exit(2);
  ::close(fd);
  return static_cast<std::byte*>(at);
}

long set_memory(int fd, const std::byte* memory) {
  Table table{.count = 1};
  table.regions[0] = {.guest_phys_addr = guest_base,
                      .memory_size = memory_size,
                      .userspace_addr = reinterpret_cast<uintptr_t>(memory)};
  return give(fd, VHOST_SET_MEM_TABLE, table);
}

int open_device(const char* path) {
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    std::perror(path);
    std::exit(2);
  }
  return fd;
}

// ---- rules

void rules_of_owners(int fd) {
  uint64_t features = 0;
  EXPECT(control(fd, VHOST_GET_FEATURES, &features), 0);
  EXPECT((features >> VIRTIO_F_VERSION_1) & 1, 1);
  EXPECT(control(fd, VHOST_GET_FEATURES, nullptr), -EFAULT);
  EXPECT(give(fd, VHOST_SET_FEATURES, uint64_t{1} << 63U), -EOPNOTSUPP);
  for (const unsigned long request :
       {VHOST_SET_MEM_TABLE, VHOST_SET_VRING_NUM, VHOST_SET_VRING_KICK, VHOST_GET_VRING_BASE,
        VHOST_NET_SET_BACKEND, static_cast<unsigned long>(VHOST_RESET_OWNER)}) {
    EXPECT(give(fd, request, std::array<uint32_t, 16>{}), -EPERM);
  }
  EXPECT(control(fd, VHOST_SET_OWNER), 0);
  EXPECT(control(fd, VHOST_SET_OWNER), -EBUSY);
}

void rules_of_memory(int fd) {
  EXPECT(give(fd, VHOST_SET_MEM_TABLE, Table{.count = 0, .padding = 1}), -EOPNOTSUPP);
  EXPECT(give(fd, VHOST_SET_MEM_TABLE, Table{.count = 0x10000}), -E2BIG);
  Table empty{.count = 1};
  empty.regions[0] = {.guest_phys_addr = 4096, .memory_size = 0, .userspace_addr = 4096};
  EXPECT(give(fd, VHOST_SET_MEM_TABLE, empty), -EFAULT);
  Table kernel{.count = 1};
  kernel.regions[0] = {.guest_phys_addr = 0, .memory_size = 4096, .userspace_addr = uint64_t{1} << 63U};
  EXPECT(give(fd, VHOST_SET_MEM_TABLE, kernel), 0);  // looked at when a ring is bound
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 0, -1), -EFAULT);
  EXPECT(control(fd, VHOST_SET_MEM_TABLE, nullptr), -EFAULT);
  EXPECT(control(fd, VHOST_SET_LOG_BASE, nullptr), -EFAULT);
  EXPECT(give(fd, VHOST_SET_LOG_BASE, uint64_t{0}), 0);
  EXPECT(give(fd, VHOST_SET_LOG_FD, -1), 0);
  EXPECT(give(fd, VHOST_SET_LOG_FD, 9999), -EBADF);
}

void rules_of_rings(int fd) {
  const int event = ::eventfd(0, EFD_CLOEXEC);
  for (const unsigned long request : {VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE}) {
    EXPECT(state(fd, request, 2, 8), -ENOBUFS);
    EXPECT(control(fd, request, nullptr), -EFAULT);
  }
  for (const unsigned number : {0U, 3U, 0x10000U}) EXPECT(state(fd, VHOST_SET_VRING_NUM, 0, number), -EINVAL);
  EXPECT(state(fd, VHOST_SET_VRING_NUM, 0, 256), 0);
  EXPECT(state(fd, VHOST_SET_VRING_BASE, 0, 0x10000), -EINVAL);
  EXPECT(state(fd, VHOST_SET_VRING_BASE, 0, 77), 0);
  vhost_vring_state base{.index = 0, .num = 0};
  EXPECT(control(fd, VHOST_GET_VRING_BASE, &base), 0);
  EXPECT(base.num, 77);
  EXPECT(give(fd, VHOST_SET_VRING_ADDR, vhost_vring_addr{.flags = 2}), -EOPNOTSUPP);
  EXPECT(give(fd, VHOST_SET_VRING_ADDR, vhost_vring_addr{.used_user_addr = 2}), -EINVAL);
  EXPECT(give(fd, VHOST_SET_VRING_ADDR, vhost_vring_addr{.avail_user_addr = 1}), -EINVAL);
  for (const unsigned long request : {VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR}) {
    EXPECT(file(fd, request, 2, -1), -ENOBUFS);
    EXPECT(file(fd, request, 0, 9999), -EBADF);
    EXPECT(file(fd, request, 0, 1), -EINVAL);
    EXPECT(file(fd, request, 0, event), 0);
    EXPECT(file(fd, request, 0, -1), 0);
  }
  EXPECT(state(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, 1, 50), 0);
  vhost_vring_state timeout{.index = 1, .num = 0};
  EXPECT(control(fd, VHOST_GET_VRING_BUSYLOOP_TIMEOUT, &timeout), 0);
  EXPECT(timeout.num, 50);
  ::close(event);
}

void rules_of_backends(int fd, const std::byte* memory) {
  const int packets = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 2, -1), -ENOBUFS);

  EXPECT(set_memory(fd, memory), 0);
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 0, -1), 0);
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 0, 9999), -ENOTSOCK);
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 0, 1), -ENOTSOCK);
  const auto at = reinterpret_cast<uintptr_t>(memory);
  EXPECT(
      give(fd, VHOST_SET_VRING_ADDR,
           vhost_vring_addr{.desc_user_addr = at, .used_user_addr = at + 8192, .avail_user_addr = at + 4096}),
      0);
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 0, packets), 0);
  EXPECT(state(fd, VHOST_SET_VRING_NUM, 0, 8), -EBUSY);
  EXPECT(state(fd, VHOST_SET_VRING_BASE, 0, 0), -EBUSY);
  EXPECT(control(fd, VHOST_RESET_OWNER), 0);
  EXPECT(file(fd, VHOST_NET_SET_BACKEND, 0, -1), -EPERM);
  ::close(packets);
}

void rules_of_unknown_ioctls(int fd) {
  for (const unsigned long request : {0xaffeUL, 0UL}) {
    EXPECT(state(fd, request, 0, 0), -ENOTTY);
    EXPECT(state(fd, request, 2, 0), -ENOBUFS);
  }
}

void rules_of_messages(int fd) {
  std::array<std::byte, 72> message{};
  EXPECT(result_of(::write(fd, message.data(), 2)), -EINVAL);
  EXPECT(result_of(::write(fd, message.data(), message.size())), -EINVAL);
  vhost_msg_v2 update{};
  update.type = VHOST_IOTLB_MSG_V2;
  update.iotlb = {.iova = 0, .size = 4096, .uaddr = 0, .perm = VHOST_ACCESS_RW, .type = VHOST_IOTLB_UPDATE};
  EXPECT(result_of(::write(fd, &update, sizeof update)), -EFAULT);
  EXPECT(result_of(::read(fd, message.data(), 71)), 0);
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  const iovec piece{.iov_base = message.data(), .iov_len = message.size()};
  EXPECT(give(fd, VHOST_SET_FEATURES,
              uint64_t{1} << VIRTIO_F_ACCESS_PLATFORM | uint64_t{1} << VIRTIO_F_VERSION_1),
         0);
  EXPECT(result_of(::read(fd, message.data(), message.size())), -EAGAIN);
  EXPECT(result_of(::readv(fd, &piece, 1)), -EAGAIN);
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  EXPECT(::poll(&entry, 1, 0), 0);
}

void rules(const char* path) {
  const int fd = open_device(path);
  rules_of_owners(fd);
  rules_of_memory(fd);
  rules_of_rings(fd);
  rules_of_unknown_ioctls(fd);
  rules_of_backends(fd, make_memory());
  ::close(fd);
  const int other = open_device(path);
  EXPECT(control(other, VHOST_SET_OWNER), 0);
  rules_of_messages(other);
  ::close(other);
}

// ---- newer

void newer(const char* path) {
  const int fd = open_device(path);
  uint64_t features = 0;
  EXPECT(control(fd, VHOST_GET_FEATURES, &features), 0);
  std::array<uint64_t, 4> words{2, 0xdead, 0xdead, 0xdead};
  EXPECT(control(fd, VHOST_GET_FEATURES_ARRAY, words.data()), 0);
  EXPECT(words == (std::array<uint64_t, 4>{2, features, 0, 0xdead}), true);
  EXPECT(give(fd, VHOST_SET_FEATURES_ARRAY, std::array<uint64_t, 3>{2, 0, 1}), -EOPNOTSUPP);
  EXPECT(give(fd, VHOST_SET_FEATURES_ARRAY, std::array<uint64_t, 3>{2, uint64_t{1} << VIRTIO_F_VERSION_1, 0}),
         0);
  std::vector<uint64_t> many(513);
  many[0] = 512;
  EXPECT(control(fd, VHOST_GET_FEATURES_ARRAY, many.data()), 0);
  EXPECT(many[1] == features, true);
  many[0] = 513;
  EXPECT(control(fd, VHOST_GET_FEATURES_ARRAY, many.data()), -E2BIG);
  uint8_t owner = 0xff;
  EXPECT(control(fd, VHOST_GET_FORK_FROM_OWNER, &owner), 0);
  EXPECT(give(fd, VHOST_SET_FORK_FROM_OWNER, owner), 0);
  EXPECT(give(fd, VHOST_SET_FORK_FROM_OWNER, static_cast<uint8_t>(1 - owner)), -EINVAL);
  EXPECT(control(fd, VHOST_SET_OWNER), 0);
  EXPECT(give(fd, VHOST_SET_FORK_FROM_OWNER, owner), -EBUSY);
  EXPECT(give(fd, VHOST_NEW_WORKER, std::array<uint32_t, 1>{0}), -ENOTTY);  // vhost-scsi has it
  ::close(fd);
}

// ---- frames

class Ring {
 public:
  static constexpr uint32_t size = 64;

  Ring(unsigned index, std::byte* memory) : index_(index), memory_(memory) {
    config_ = {.size = size,
               .format = ring::Format::of(uint64_t{1} << VIRTIO_F_VERSION_1, false),
               .area = memory + at(),
               .address = {guest_base + at()}};
    driver_ = std::make_unique<ring::SplitDriver>(std::get<ring::SplitDriver>(*ring::make_driver(config_)));
  }
  Ring(int fd, unsigned index, std::byte* memory) : Ring(index, memory) {
    fd_ = fd;
    const ring::DriverLayout layout = config_.layout();
    const auto area = reinterpret_cast<uintptr_t>(config_.area);
    EXPECT(state(fd, VHOST_SET_VRING_NUM, index, size), 0);
    EXPECT(state(fd, VHOST_SET_VRING_BASE, index, 0), 0);
    EXPECT(give(fd, VHOST_SET_VRING_ADDR,
                vhost_vring_addr{.index = index,
                                 .flags = 0,
                                 .desc_user_addr = area + layout.desc,
                                 .used_user_addr = area + layout.device,
                                 .avail_user_addr = area + layout.driver,
                                 .log_guest_addr = 0}),
           0);
    EXPECT(file(fd, VHOST_SET_VRING_KICK, index, kick_), 0);
    EXPECT(file(fd, VHOST_SET_VRING_CALL, index, call_), 0);
  }
  ~Ring() {
    ::close(kick_);
    ::close(call_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  [[nodiscard]] vhost::QueueSetup setup() const {
    const ring::DriverLayout layout = config_.layout();
    return {.ring = index_,
            .size = size,
            .desc = user_base + at() + layout.desc,
            .driver = user_base + at() + layout.driver,
            .device = user_base + at() + layout.device,
            .kick = UniqueFd(::fcntl(kick_, F_DUPFD_CLOEXEC, 3)),
            .call = UniqueFd(::fcntl(call_, F_DUPFD_CLOEXEC, 3)),
            .err = {}};
  }
  [[nodiscard]] long bind(int backend) const { return file(fd_, VHOST_NET_SET_BACKEND, index_, backend); }
  [[nodiscard]] std::byte* buffer(uint64_t number) const { return memory_ + offset(number); }
  void add(uint64_t number, uint32_t length) {
    const ring::Buffer buffer{.address = {guest_base + offset(number)}, .length = length};
    const bool writable = index_ == 0;
    const ring::Buffers chain = writable ? ring::Buffers{.readable = {}, .writable = {&buffer, 1}}
                                         : ring::Buffers{.readable = {&buffer, 1}, .writable = {}};
    EXPECT(driver_->add(chain).has_value(), true);
    if (driver_->publish()) ::eventfd_write(kick_, 1);
  }
  // Bytes that were written; -1: nothing came.
  long take() {
    for (int i = 0; i < 100'000; ++i) {
      const auto taken = driver_->take_used();
      if (!taken) return -2;
      const auto& used = *taken;
      if (used) return static_cast<long>(used->written);
      ::usleep(100);
    }
    return -1;
  }

 private:
  [[nodiscard]] uint64_t at() const { return uint64_t{index_} << 20U; }
  [[nodiscard]] uint64_t offset(uint64_t number) const { return at() + (256U << 10U) + number % size * 4096; }
  int fd_ = -1;
  const unsigned index_;
  std::byte* const memory_;
  const int kick_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int call_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ring::DriverConfig config_;
  std::unique_ptr<ring::SplitDriver> driver_;
};

void set_up(int fd, const std::byte* memory) {
  EXPECT(control(fd, VHOST_SET_OWNER), 0);
  EXPECT(give(fd, VHOST_SET_FEATURES, uint64_t{1} << VIRTIO_F_VERSION_1), 0);
  EXPECT(set_memory(fd, memory), 0);
}

void carry(Ring& receive, Ring& transmit, uint64_t number) {
  constexpr uint32_t header = 12;
  const auto length = static_cast<uint32_t>(header + 60 + number * 131 % 1400);
  std::memset(transmit.buffer(number), 0, header);
  for (uint32_t i = header; i < length; ++i) transmit.buffer(number)[i] = std::byte(number * 7 + i);
  receive.add(number, 4096);
  transmit.add(number, length);
  EXPECT(receive.take(), length);
  EXPECT(std::memcmp(receive.buffer(number) + header, transmit.buffer(number) + header, length - header), 0);
  EXPECT(transmit.take(), 0);
}

void frames(const char* path, uint64_t count) {
  const int fd = open_device(path);
  const int packets = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  std::byte* memory = make_memory();
  set_up(fd, memory);
  Ring receive(fd, 0, memory);
  Ring transmit(fd, 1, memory);
  EXPECT(receive.bind(packets), 0);
  EXPECT(transmit.bind(packets), 0);
  for (uint64_t number = 0; number < count && differences == 0; ++number) carry(receive, transmit, number);
  vhost_vring_state base{.index = 1, .num = 0};
  EXPECT(transmit.bind(-1), 0);
  EXPECT(control(fd, VHOST_GET_VRING_BASE, &base), 0);
  EXPECT(base.num, static_cast<long>(count));
  ::close(packets);
  ::close(fd);
}

// ---- session

template <class T>
T must(Result<T> result, const char* what) {
  if (!result) {
    std::printf("%s: %s\n", what, result.error().to_string().c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

void session(const char* path, uint64_t count) {
  const UniqueFd shared(::memfd_create("session", MFD_CLOEXEC));
  if (::ftruncate(shared.get(), memory_size) != 0) std::exit(2);
  const Mapping memory = must(Mapping::of_file(shared.get(), memory_size, 0), "memory");
  auto endpoint =
      must(kernel::net_endpoint(UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0))), "net");
  auto device =
      must(kernel::KernelDevice::open(must(kernel::VhostFile::open(path), path), std::move(endpoint)), path);
  vhost::Contract contract(*device, {.queues = 2});
  vhost::Session session(contract);
  must(session.negotiate({.features = uint64_t{1} << VIRTIO_F_VERSION_1, .capabilities = 0}), "negotiate");
  const vhost::SharedRegion region{
      .layout = {.guest = {guest_base}, .size = memory_size, .front_end = {user_base}}, .fd = shared.get()};
  must(session.map_memory({&region, 1}), "map_memory");
  Ring receive(0, memory.data());
  Ring transmit(1, memory.data());
  must(session.start_queue(receive.setup()), "start_queue");
  must(session.start_queue(transmit.setup()), "start_queue");
  for (uint64_t number = 0; number < count && differences == 0; ++number) carry(receive, transmit, number);
  EXPECT(must(session.stop_queue(1), "stop_queue"), static_cast<long>(count));
  EXPECT(must(session.stop_queue(0), "stop_queue"), static_cast<long>(count));
}

// ---- sharing

int in_child(int (*what)(int fd), int fd) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(what(fd));
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

const char* device_path = nullptr;

// Whatever the parent has, a child may open the device for itself.
int open_as_child(int fd) {
  const int own = open_device(device_path);
  std::byte* memory = make_memory();
  EXPECT(control(own, VHOST_SET_OWNER), 0);
  EXPECT(set_memory(own, memory), 0);
  EXPECT(state(own, VHOST_GET_VRING_BASE, 0, 0), 0);
  EXPECT(::close(own), 0);
  EXPECT(::close(fd), 0);
  std::fflush(stdout);
  return differences;
}

int use_as_child(int fd) {
  uint64_t features = 0;
  EXPECT(control(fd, VHOST_GET_FEATURES, &features), 0);
  EXPECT(control(fd, VHOST_GET_BACKEND_FEATURES, &features), 0);
  EXPECT(static_cast<long>(features), 1 << VHOST_BACKEND_F_IOTLB_MSG_V2);
  EXPECT(control(fd, VHOST_SET_OWNER), -EBUSY);
  EXPECT(state(fd, VHOST_GET_VRING_BASE, 0, 0), -EPERM);
  EXPECT(give(fd, VHOST_SET_MEM_TABLE, Table{}), -EPERM);
  EXPECT(control(fd, VHOST_RESET_OWNER), -EPERM);
  EXPECT(::close(fd), 0);
  std::fflush(stdout);
  return differences;
}

// What belongs to the parent is closed and replaced between vfork() and exec.
int vfork_child(int fd) {
  const pid_t child = ::vfork();
  if (child == 0) {
    ::dup2(2, fd);
    ::close(fd);
    ::execl("/bin/true", "true", nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

// Whoever asks a number meanwhile finds a device there, or nothing.
void closed_and_replaced_meanwhile(const char* path) {
  constexpr int number = 400;
  const std::array<int, 2> devices{open_device(path), open_device(path)};
  std::atomic<bool> done = false;
  std::thread asker([&] {
    while (!done) {
      uint64_t features = 0;
      const long result = control(number, VHOST_GET_FEATURES, &features);
      if (result != -EBADF) EXPECT(result, 0);
    }
  });
  for (int i = 0; i < 2000; ++i) {
    EXPECT(::dup2(devices[0], number), number);
    EXPECT(::dup2(devices[1], number), number);
    if (i % 2 == 0)
      EXPECT(::close(number), 0);
    else
      EXPECT(::close_range(number, number, 0), 0);
  }
  done = true;
  asker.join();
  for (const int one : devices) EXPECT(::close(one), 0);
}

void sharing(const char* path) {
  std::byte* memory = make_memory();
  const int packets = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  int fd = open_device(path);
  set_up(fd, memory);
  device_path = path;
  EXPECT(in_child(use_as_child, fd), 0);
  EXPECT(in_child(open_as_child, fd), 0);
  EXPECT(vfork_child(fd), 0);
  EXPECT(control(fd, VHOST_SET_OWNER), -EBUSY);

  // The file lives as long as one of its descriptors.
  const int second = ::dup(fd);
  const int third = ::dup2(second, 200);
  const int fourth = ::dup3(second, 201, O_CLOEXEC);
  const int fifth = ::fcntl(second, F_DUPFD_CLOEXEC, 300);
  EXPECT(third, 200);
  EXPECT(fourth, 201);
  EXPECT(fifth >= 300, true);
  EXPECT(::close(fd), 0);
  EXPECT(control(fd, VHOST_SET_OWNER), -EBADF);
  for (const int one : {second, third, fourth, fifth}) EXPECT(control(one, VHOST_SET_OWNER), -EBUSY);
  fd = fifth;
  for (const int one : {second, third}) EXPECT(::close(one), 0);
  const int plain = ::eventfd(0, EFD_CLOEXEC);
  EXPECT(::dup2(plain, fourth), fourth);
  EXPECT(control(fourth, VHOST_SET_OWNER), -ENOTTY);  // an eventfd by now
  EXPECT(::close(fourth), 0);

  // A number that was the device's is anything else's afterwards.
  {
    Ring receive(fd, 0, memory);
    Ring transmit(fd, 1, memory);
    EXPECT(receive.bind(packets), 0);
    EXPECT(transmit.bind(packets), 0);
    std::thread closer([&] { EXPECT(::close(fd), 0); });
    for (int i = 0; i < 1000; ++i) {
      const long result = state(fd, VHOST_GET_VRING_BASE, 0, 0);
      if (result != 0 && result != -EBADF) EXPECT(result, -EBADF);
    }
    closer.join();
  }
  EXPECT(::dup2(plain, fd), fd);
  EXPECT(::eventfd_write(fd, 5), 0);
  eventfd_t value = 0;
  EXPECT(::eventfd_read(fd, &value), 0);
  EXPECT(static_cast<long>(value), 5);

  // Many files at once, opened and closed by many threads.
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        const int own = open_device(path);
        EXPECT(control(own, VHOST_SET_OWNER), 0);
        EXPECT(set_memory(own, memory), 0);
        EXPECT(::close(own), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  closed_and_replaced_meanwhile(path);
  const int last = open_device(path);  // left open: the process ends with it
  set_up(last, memory);
}

void hold(const char* path) {
  const int fd = open_device(path);
  const int packets = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  std::byte* memory = make_memory();
  set_up(fd, memory);
  const Ring receive(fd, 0, memory);
  const Ring transmit(fd, 1, memory);
  EXPECT(receive.bind(packets), 0);
  EXPECT(transmit.bind(packets), 0);
  if (differences > 0) return;
  std::puts("held");
  std::fflush(stdout);
  ::pause();
}

// ---- paths

// How a path is named to a function of the C library.
struct Name {
  int folder = AT_FDCWD;
  std::string path;
};

void sees_a_device(const Name& name) {
  const char* path = name.path.c_str();
  struct stat status{};
  struct stat64 status64{};
  struct statx statusx{};
  EXPECT(result_of(::fstatat(name.folder, path, &status, 0)), 0);
  EXPECT(S_ISCHR(status.st_mode), true);
  EXPECT(result_of(::fstatat64(name.folder, path, &status64, AT_SYMLINK_NOFOLLOW)), 0);
  EXPECT(static_cast<long>(status64.st_rdev), static_cast<long>(status.st_rdev));
  EXPECT(result_of(::statx(name.folder, path, 0, STATX_TYPE, &statusx)), 0);
  EXPECT(S_ISCHR(statusx.stx_mode), true);
  EXPECT(result_of(::faccessat(name.folder, path, R_OK | W_OK, AT_EACCESS)), 0);
  EXPECT(result_of(::openat(name.folder, path, O_RDWR | O_CREAT | O_EXCL, 0600)), -EEXIST);
  const int fd = ::openat(name.folder, path, O_RDWR | O_CLOEXEC);
  uint64_t features = 0;
  EXPECT(control(fd, VHOST_GET_FEATURES, &features), 0);
  ::close(fd);
}

// Those that programs call which are as old as the C library's version before 2.33, and those that have no
// folder.
void sees_a_device_by_all_functions(const char* path) {
  struct stat status{};
  struct stat64 status64{};
  for (auto* look : {::stat, ::lstat}) {
    status = {};
    EXPECT(result_of(look(path, &status)), 0);
    EXPECT(S_ISCHR(status.st_mode), true);
  }
  for (auto* look : {::stat64, ::lstat64}) {
    status64 = {};
    EXPECT(result_of(look(path, &status64)), 0);
    EXPECT(S_ISCHR(status64.st_mode), true);
  }
  constexpr int version = 1;
  for (const char* name : {"__xstat", "__xstat64", "__lxstat", "__lxstat64"}) {
    using Look = int(int, const char*, struct stat*);
    auto* look = reinterpret_cast<Look*>(::dlsym(RTLD_DEFAULT, name));
    status = {};
    EXPECT(result_of(look(version, path, &status)), 0);
    EXPECT(S_ISCHR(status.st_mode), true);
  }
  for (const char* name : {"__fxstatat", "__fxstatat64"}) {
    using Look = int(int, int, const char*, struct stat*, int);
    auto* look = reinterpret_cast<Look*>(::dlsym(RTLD_DEFAULT, name));
    status = {};
    EXPECT(result_of(look(version, AT_FDCWD, path, &status, 0)), 0);
    EXPECT(S_ISCHR(status.st_mode), true);
  }
  for (auto* may : {::access, ::eaccess, ::euidaccess}) EXPECT(result_of(may(path, R_OK | W_OK)), 0);
  EXPECT(result_of(::access(path, X_OK)), -EACCES);
}

void paths(const char* path) {
  const std::string name(std::string_view(path).substr(std::string_view("/dev/").size()));
  const int folder = ::open("/dev", O_PATH | O_CLOEXEC);
  for (const Name& one :
       {Name{.path = path}, Name{.path = "//dev//" + name}, Name{.path = "/dev/./../dev/" + name},
        Name{.folder = folder, .path = name}, Name{.folder = folder, .path = "./" + name}}) {
    sees_a_device(one);
  }
  sees_a_device_by_all_functions(path);
  EXPECT(::chdir("/dev"), 0);
  sees_a_device({.path = name});
  errno = ERANGE;
  struct stat status{};
  EXPECT(::stat(name.c_str(), &status), 0);
  EXPECT(errno, ERANGE);
}

// A system call is nobody's but the host's.
void host(const char* path) {
  struct stat status{};
  const long wanted = result_of(::syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0));
  EXPECT(result_of(::stat(path, &status)), wanted);
  EXPECT(result_of(::access(path, F_OK)), wanted);
  const int fd = ::open(path, O_PATH | O_CLOEXEC);
  EXPECT(result_of(fd) < 0, wanted < 0);
  ::close(fd);
}

// ---- misuse

// Whatever it calls first, its process number is not ours.
void first_calls_in_a_vfork_child(const char* path) {
  const pid_t child = ::vfork();  // NOLINT(clang-analyzer-security.insecureAPI.vfork)
  if (child == 0) {
    ::closefrom(1000);
    ::close_range(1000, 2000, 0);
    (void)::open("/dev/vhost-netx", O_RDONLY);
    (void)::open(path, O_RDWR);
    ::_exit(0);
  }
  EXPECT(::waitpid(child, nullptr, 0), child);
}

void paths_that_are_not_there() {
  for (const uintptr_t address : {uintptr_t{0}, uintptr_t{1}, UINTPTR_MAX - 4}) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    const char* const volatile path = reinterpret_cast<const char*>(address);
    EXPECT(result_of(::open(path, O_RDONLY)), -EFAULT);
    EXPECT(result_of(::openat(AT_FDCWD, path, O_RDONLY)), -EFAULT);
    struct stat status{};
    EXPECT(result_of(::stat(path, &status)), -EFAULT);
    EXPECT(result_of(::access(path, F_OK)), -EFAULT);
    EXPECT(result_of(::access(path, 8)), -EINVAL);
  }
  // A short path at the very end of memory.
  auto area = *Mapping::anonymous(8192);
  ::mprotect(area.data() + 4096, 4096, PROT_NONE);
  auto* at = reinterpret_cast<char*>(area.data()) + 4096 - 2;
  std::memcpy(at, "/", 2);
  const long folder = result_of(::open(at, O_RDONLY));
  EXPECT(folder >= 0, true);
  ::close(static_cast<int>(folder));
}

void failures_that_close_nothing(int fd) {
  const int other = ::eventfd(0, EFD_CLOEXEC);
  const auto number = static_cast<unsigned>(fd);
  EXPECT(result_of(::dup3(other, fd, 0xbad)), -EINVAL);
  EXPECT(control(fd, VHOST_SET_OWNER), 0);
  EXPECT(result_of(::dup2(9999, fd)), -EBADF);
  EXPECT(control(fd, VHOST_SET_OWNER), -EBUSY);
  EXPECT(result_of(::close_range(number, number, 1 << 20)), -EINVAL);
  EXPECT(control(fd, VHOST_SET_OWNER), -EBUSY);
  ::close(other);
}

void misuse(const char* path) {
  first_calls_in_a_vfork_child(path);
  paths_that_are_not_there();
  const int fd = open_device(path);
  failures_that_close_nothing(fd);
  ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 2 ? argv[1] : "";
  if (what == "rules") {
    rules(argv[2]);
  } else if (what == "newer") {
    newer(argv[2]);
  } else if (what == "sharing") {
    sharing(argv[2]);
  } else if (what == "hold") {
    hold(argv[2]);
  } else if (what == "paths") {
    paths(argv[2]);
  } else if (what == "host") {
    host(argv[2]);
  } else if (what == "misuse") {
    misuse(argv[2]);
  } else if (what == "frames" && argc == 4) {
    frames(argv[2], std::strtoull(argv[3], nullptr, 10));
  } else if (what == "session" && argc == 4) {
    session(argv[2], std::strtoull(argv[3], nullptr, 10));
  } else {
    return 2;
  }
  if (differences == 0) std::printf("ok %s\n", argv[1]);
  return differences == 0 ? 0 : 1;
}
