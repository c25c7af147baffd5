#include "fuzz/wire_script.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace ringway::fuzz {
namespace {

// Sizes of receives, used in turn; see __wrap_recvmsg.
std::vector<uint8_t> receive_sizes;
size_t next_receive = 0;

constexpr int max_fds = 253;  // SCM_MAX_FD

std::array<UniqueFd, 2> make_pipe() {
  std::array<int, 2> ends{-1, -1};
  FUZZ_CHECK(::pipe2(ends.data(), O_CLOEXEC) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

UniqueFd make_file(off_t size, int seals = 0) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  FUZZ_CHECK(::ftruncate(fd.get(), size) == 0);
  if (seals != 0) ::fcntl(fd.get(), F_ADD_SEALS, seals);
  return fd;
}

void send(int socket, std::span<const std::byte> bytes, std::span<const UniqueFd> fds) {
  alignas(cmsghdr) static std::array<std::byte, CMSG_SPACE(max_fds * sizeof(int))> control;
  iovec whole{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    *header = {
        .cmsg_len = CMSG_LEN(fds.size() * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    for (size_t i = 0; i < fds.size(); ++i) {
      const int fd = fds[i].get();
      std::memcpy(CMSG_DATA(header) + i * sizeof fd, &fd, sizeof fd);
    }
  }
  ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

Sockets::Sockets() {
  std::array<int, 2> ends{-1, -1};
  FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  ours.reset(ends[0]);
  theirs.reset(ends[1]);
  // Replies are not read while requests are being served: both have to fit.
  const int bytes = 1 << 20;
  for (const int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
}

WireScript::WireScript(Input& input, const UniqueFd& memory) : memory_(memory) {
  Input sizes = input.part();
  receive_sizes.clear();
  next_receive = 0;
  while (!sizes.empty()) receive_sizes.push_back(sizes.take<uint8_t>());
  while (!input.empty() && sends_.size() < 200) {
    if (input.take<uint8_t>() % 4 == 0)
      read_raw(input);
    else
      read_message(input);
  }
}

WireScript::~WireScript() { receive_sizes.clear(); }

void WireScript::read_raw(Input& input) {
  Send send;
  const uint8_t count = input.take<uint8_t>();
  const auto fds = input.bytes(count % 16 == 15 ? count : count % 16);
  for (const std::byte kind : fds) send.fds.push_back(static_cast<uint8_t>(kind));
  const auto bytes = input.bytes(input.take<uint8_t>());
  send.bytes.assign(bytes.begin(), bytes.end());
  sends_.push_back(std::move(send));
}

// Id, flags, file descriptors and payload of a message whose header is right.
void WireScript::read_message(Input& input) {
  Send send;
  const uint32_t id = input.take<uint8_t>();
  const auto flags_and_fds = input.take<uint8_t>();
  const uint32_t flags = 1U | (flags_and_fds & 0xcU);
  for (const std::byte kind : input.bytes(flags_and_fds >> 4)) send.fds.push_back(static_cast<uint8_t>(kind));
  const auto length = input.take<uint8_t>();
  const auto payload = input.bytes(length == 0xff ? 4096 : length);
  const std::array<uint32_t, 3> header{id, flags, static_cast<uint32_t>(payload.size())};
  const auto head = std::as_bytes(std::span(header));
  send.bytes.assign(head.begin(), head.end());
  send.bytes.insert(send.bytes.end(), payload.begin(), payload.end());
  sends_.push_back(std::move(send));
}

void WireScript::play(const UniqueFd& socket) {
  for (const Send& one : sends_) {
    std::vector<UniqueFd> fds;
    for (const uint8_t kind : one.fds) {
      if (fds.size() == max_fds) break;
      if (UniqueFd fd = make_fd(kind, memory_)) fds.push_back(std::move(fd));
    }
    if (!one.bytes.empty()) send(socket.get(), one.bytes, fds);
  }
  ::shutdown(socket.get(), SHUT_WR);
}

UniqueFd make_fd(uint8_t kind, const UniqueFd& memory) {
  switch (kind % 20) {
    case 0:
    case 1:
      return UniqueFd(::eventfd(0, EFD_CLOEXEC));
    case 2:
      return UniqueFd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    case 3:
    case 4:
    case 5:
      return memory ? std::move(memory.duplicate().value()) : make_file(0x6000);
    case 6:
      return std::move(make_pipe()[0]);
    case 7:
      return std::move(make_pipe()[1]);
    case 8:
      return make_file(0x1000);
    case 9:
      return make_file(0);
    case 10:
      return make_file(0x6000, F_SEAL_WRITE | F_SEAL_SHRINK);
    case 11:
      return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    case 12:
      return std::move(Sockets().ours);  // whose other end has left
    case 13:
      return UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    case 14:
      return UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    case 15:
      return UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    case 16:
      return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
    case 17:
      return UniqueFd(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    case 18:
      return UniqueFd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    default:
      return UniqueFd(::open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC));
  }
}

int lowest_free_fd() {
  const UniqueFd probe(::fcntl(STDIN_FILENO, F_DUPFD, 0));
  return probe.get();
}

}  // namespace ringway::fuzz

// A receive gets no more than the script says, so that a message may arrive in any pieces.
extern "C" ssize_t __real_recvmsg(int fd, msghdr* message, int flags);
extern "C" ssize_t __wrap_recvmsg(int fd, msghdr* message, int flags) {
  using namespace ringway::fuzz;
  if (receive_sizes.empty() || message->msg_iovlen != 1) return __real_recvmsg(fd, message, flags);
  const uint8_t size = receive_sizes[next_receive++ % receive_sizes.size()];
  const size_t wanted = message->msg_iov->iov_len;
  if (size != 0) message->msg_iov->iov_len = std::min<size_t>(wanted, size);
  const ssize_t got = __real_recvmsg(fd, message, flags);
  message->msg_iov->iov_len = wanted;
  return got;
}
