#include "ringway/user/connection.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

#include "ringway/user/ancillary.h"
#include "ringway/user/sockets.h"

namespace ringway::user {
namespace {

Result<> check(const Header& header) {
  if ((header.flags & version_mask) != version)
    return violation("unknown message version", header.flags & version_mask);
  if (header.size > max_payload) return violation("payload is larger than any message's", header.size);
  return {};
}

int poll_time(Connection::Deadline deadline) {
  if (!deadline) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*deadline - Connection::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
}

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

std::unexpected<Error> failed(const char* what) {
  if (errno == EPIPE || errno == ECONNRESET) return gone("the peer has closed the connection");
  return os_failure(what);
}

// write(), which has no MSG_NOSIGNAL: a reader that has just left must not end the process.
ssize_t write_without_signal(int fd, std::span<const std::byte> from) {
  sigset_t pipe_signal;
  sigset_t before;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t written = ::write(fd, from.data(), std::min<size_t>(from.size(), PIPE_BUF));
  const int error = errno;
  const timespec at_once{};
  if (written < 0 && error == EPIPE) ::sigtimedwait(&pipe_signal, nullptr, &at_once);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return written;
}

std::vector<std::byte> flatten(const Frame& frame) {
  std::vector<std::byte> bytes(sizeof(Header) + frame.payload.size());
  std::memcpy(bytes.data(), &frame.header, sizeof(Header));
  std::copy(frame.payload.begin(), frame.payload.end(), bytes.begin() + sizeof(Header));
  return bytes;
}

}  // namespace

// What one read brought.
struct Connection::Piece {
  size_t bytes = 0;
  std::vector<UniqueFd> fds;
  bool truncated = false;  // the kernel had more file descriptors than we could take
};

Result<std::shared_ptr<Connection>> Connection::adopt(UniqueFd fd, ConnectionOptions options) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return os_failure("cannot examine a connection's file descriptor");
  const bool is_socket = S_ISSOCK(status.st_mode);
  if (is_socket ? !is_unix_stream(fd.get()) : !S_ISFIFO(status.st_mode)) {
    return refused("a connection must be a UNIX stream socket or a pipe");
  }
  return std::shared_ptr<Connection>(new Connection(std::move(fd), is_socket, std::move(options)));
}

Result<Frame> Connection::receive(Deadline deadline) {
  Frame frame;
  std::array<std::byte, sizeof(Header)> header;
  TRY(wait(POLLIN, deadline, "no message came in time", options_.gate.get()));
  const Deadline complete = Clock::now() + options_.message_time_out;
  TRY(fill(header, frame, complete, true));
  std::memcpy(&frame.header, header.data(), sizeof(Header));
  const Result<> sound = check(frame.header);
  if (sound) {
    frame.payload.resize(frame.header.size);
    TRY(fill(frame.payload, frame, complete, false));
  }
  if (frame.fd_fault != nullptr) frame.fds.clear();
  observe(Direction::received, frame);
  TRY(sound);
  return frame;
}

// Reads exactly `to`. File descriptors are accepted with the first bytes of a message only.
Result<> Connection::fill(std::span<std::byte> to, Frame& frame, Deadline deadline, bool begins) {
  while (!to.empty()) {
    TRY(wait(POLLIN, deadline, "the rest of a message did not come in time"));
    Piece piece = TRY(receive_some(to));
    if (piece.bytes == 0) continue;
    if (piece.truncated) frame.fd_fault = "file descriptors were lost: too many are open";
    if (!begins && !piece.fds.empty())
      frame.fd_fault = "file descriptors came after the first bytes of the message";
    if (begins) frame.fds = std::move(piece.fds);
    if (frame.fds.size() > max_fds) frame.fd_fault = "more than 8 file descriptors";
    begins = false;
    to = to.subspan(piece.bytes);
  }
  return {};
}

// 0 bytes: nothing there after all.
Result<Connection::Piece> Connection::receive_some(std::span<std::byte> to) {
  if (!is_socket_) return gone("nothing can be received from a pipe");
  Ancillary ancillary;
  iovec whole{.iov_base = to.data(), .iov_len = to.size()};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  ancillary.make_room(message);
  const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && would_block(errno)) return Piece{};
  if (got < 0) return failed("cannot receive");
  if (got == 0) return gone("the peer has closed the connection");
  return Piece{.bytes = static_cast<size_t>(got),
               .fds = Ancillary::take_fds(message),
               .truncated = (message.msg_flags & MSG_CTRUNC) != 0};
}

Result<> Connection::send(const Frame& frame, Deadline deadline) {
  observe(Direction::sent, frame);
  const std::vector<std::byte> bytes = flatten(frame);
  std::span<const std::byte> rest = bytes;
  std::span<const UniqueFd> fds = frame.fds;
  while (!rest.empty()) {
    TRY(wait(POLLOUT, deadline, "a message could not be sent in time"));
    const size_t sent = TRY(send_some(rest, fds));
    if (sent > 0) fds = {};
    rest = rest.subspan(sent);
  }
  return {};
}

Result<size_t> Connection::send_some(std::span<const std::byte> from, std::span<const UniqueFd> fds) {
  if (!is_socket_ && !fds.empty()) return refused("file descriptors cannot be sent over a pipe");
  Ancillary ancillary;
  iovec whole{.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  ancillary.attach(message, fds);
  const ssize_t sent = is_socket_ ? ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                                  : write_without_signal(fd_.get(), from);
  if (sent < 0 && would_block(errno)) return size_t{0};
  if (sent < 0) return failed("cannot send");
  return static_cast<size_t>(sent);
}

Result<> Connection::wait(short events, Deadline deadline, const char* late, Gate* gate) {
  std::array<pollfd, 3> entries{{{.fd = fd_.get(), .events = events},
                                 {.fd = options_.stop ? options_.stop->fd() : -1, .events = POLLIN},
                                 {.fd = gate != nullptr ? gate->fd() : -1, .events = POLLIN}}};
  while (true) {
    const int ready = ::poll(entries.data(), entries.size(), poll_time(deadline));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return os_failure("cannot wait for a peer");
    if (ready == 0 && deadline && Clock::now() >= *deadline) return violation(late);
    if (entries[1].revents != 0) return gone("stopping");
    if (entries[2].revents != 0) {
      gate->pass();
      continue;
    }
    if (entries[0].revents != 0) return {};
  }
}

void Connection::observe(Direction direction, const Frame& frame) const {
  if (options_.observer) options_.observer(direction, frame);
}

void Connection::close() {
  if (is_socket_) ::shutdown(fd_.get(), SHUT_RDWR);
}

void Connection::stop_receiving() {
  if (is_socket_) ::shutdown(fd_.get(), SHUT_RD);
}

bool Connection::hung_up() const {
  pollfd entry{.fd = fd_.get(), .events = POLLRDHUP};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace ringway::user
