#include "ringway/tools/upgrade_request.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <system_error>

namespace ringway::tools {
namespace {

constexpr timeval answer_time_out{.tv_sec = 5, .tv_usec = 0};
constexpr size_t longest = 8192;  // bytes of a packet

// An abstract name: nothing is left behind.
socklen_t name_socket(sockaddr_un& address, pid_t pid, uint32_t number) {
  address = {.sun_family = AF_UNIX};
  const std::string name = fmt::format("ringway-upgrade-{}-{:08x}", pid, number);
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

UniqueFd packet_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)); }

ucred peer_of(int fd) {
  ucred peer{.pid = 0, .uid = static_cast<uid_t>(-1), .gid = 0};
  socklen_t size = sizeof peer;
  ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
  return peer;
}

// Empty: nothing came.
std::string receive(int fd) {
  std::string packet(longest, '\0');
  const ssize_t got = ::recv(fd, packet.data(), packet.size(), 0);
  packet.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return packet;
}

bool send(int fd, const std::string& packet) {
  return ::send(fd, packet.data(), packet.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(packet.size());
}

// A process that does not wait for SIGUSR2 would be killed by it.
bool waits_for_signal(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  std::string line;
  while (std::getline(status, line)) {
    uint64_t mask = 0;
    if (!line.starts_with("SigBlk:\t")) continue;
    std::from_chars(line.data() + 8, line.data() + line.size(), mask, 16);
    return (mask >> (SIGUSR2 - 1) & 1) != 0;
  }
  return false;
}

// An abstract name can be reached in one network namespace only.
bool is_in_other_network(pid_t pid) {
  std::error_code error;
  const auto own = std::filesystem::read_symlink("/proc/self/ns/net", error);
  const auto other = std::filesystem::read_symlink(fmt::format("/proc/{}/ns/net", pid), error);
  return !error && own != other;
}

std::string cannot_ask(pid_t pid) {
  return errno == ESRCH ? fmt::format("there is no process {}", pid)
                        : fmt::format("process {} cannot be asked: {}", pid, std::strerror(errno));
}

}  // namespace

// ---- the process that serves

UpgradeRequest UpgradeRequest::of(const signalfd_siginfo& signal) {
  UpgradeRequest request;
  if (signal.ssi_code != SI_QUEUE) return request;
  if (auto asked = request.ask(signal); !asked) request.mistake_ = asked.error();
  return request;
}

Parsed<void> UpgradeRequest::ask(const signalfd_siginfo& signal) {
  const auto pid = static_cast<pid_t>(signal.ssi_pid);
  socket_ = packet_socket();
  sockaddr_un address;
  const socklen_t size = name_socket(address, pid, static_cast<uint32_t>(signal.ssi_int));
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &answer_time_out, sizeof answer_time_out);
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &answer_time_out, sizeof answer_time_out);
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0)
    return std::unexpected("who asked for an upgrade does not wait for it");
  const ucred peer = peer_of(socket_.get());
  if (peer.pid != pid || (peer.uid != 0 && peer.uid != ::geteuid()))
    return std::unexpected("an upgrade was asked for by somebody else");
  const std::string wish = receive(socket_.get());
  int64_t seconds = 0;
  const auto number = std::from_chars(wish.data(), wish.data() + wish.size(), seconds);
  if (number.ec != std::errc{} || *number.ptr != ' ' || seconds < 1 || seconds > 3600)
    return std::unexpected("an upgrade was asked for in an unknown way");
  time_to_open_ = std::chrono::seconds(seconds);
  binary_ = wish.substr(static_cast<size_t>(number.ptr - wish.data()) + 1);
  return {};
}

void UpgradeRequest::answer(bool moved, const std::string& sentence) const {
  if (socket_) [[maybe_unused]]
    const bool sent = send(socket_.get(), (moved ? "1" : "0") + sentence);
}

std::string own_binary() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error);
}

// ---- the one who asks

Parsed<UpgradeAnswer> ask_for_upgrade(pid_t pid, const std::string& binary,
                                      std::chrono::seconds time_to_open) {
  if (::kill(pid, 0) != 0) return std::unexpected(cannot_ask(pid));
  if (!waits_for_signal(pid)) return std::unexpected(fmt::format("process {} is no ringway serve", pid));
  const auto number = static_cast<uint32_t>(std::random_device{}());
  UniqueFd listening = packet_socket();
  sockaddr_un address;
  const socklen_t size = name_socket(address, ::getpid(), number);
  if (::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listening.get(), 1) != 0) {
    return std::unexpected(fmt::format("cannot wait for an answer: {}", std::strerror(errno)));
  }
  if (is_in_other_network(pid))
    return std::unexpected(fmt::format(
        "process {0} is in another network namespace: nsenter -n -t {0} ringway upgrade ...", pid));
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  sigval value{};
  value.sival_int = static_cast<int>(number);
  if (::sigqueue(pid, SIGUSR2, value) != 0) return std::unexpected(cannot_ask(pid));
  // It may be at another upgrade.
  std::array<pollfd, 2> entries{pollfd{.fd = listening.get(), .events = POLLIN},
                                pollfd{.fd = process.get(), .events = POLLIN}};
  const auto patience = std::chrono::milliseconds(time_to_open + std::chrono::seconds(60)).count();
  if (::poll(entries.data(), entries.size(), static_cast<int>(patience)) < 1)
    return std::unexpected(fmt::format("process {} does not answer", pid));
  if (entries[0].revents == 0)
    return std::unexpected(fmt::format("process {} has ended and did not answer", pid));
  const UniqueFd socket(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (peer_of(socket.get()).pid != pid) return std::unexpected("somebody else answers");
  if (!send(socket.get(), fmt::format("{} {}", time_to_open.count(), binary)))
    return std::unexpected(fmt::format("process {} does not listen", pid));
  const std::string answer = receive(socket.get());
  if (answer.empty()) return std::unexpected(fmt::format("process {} ended before it answered", pid));
  return UpgradeAnswer{.moved = answer[0] == '1', .sentence = answer.substr(1)};
}

}  // namespace ringway::tools
