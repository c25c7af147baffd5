#include "ringway/tools/trace_pump.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ringway/user/ancillary.h"

namespace ringway::tools {
namespace {

constexpr size_t max_read = 16 * 1024;
constexpr size_t max_at_once = 64 * 1024;
constexpr int so_passpidfd = 76;  // SO_PASSPIDFD, which older headers lack
constexpr uint32_t set_backend_req_fd = user::id_of<vhost::DeviceRequest, vhost::SetFrontEnd>;

struct Peeked {
  size_t bytes = 0;
  bool has_fds = false;
};

// What a read into `buffer` would bring. Where there is no room for file descriptors none is made. The kernel
// also tells of those that come behind the last byte.
Peeked peek(int socket, std::span<std::byte> buffer) {
  iovec whole{.iov_base = buffer.data(), .iov_len = buffer.size()};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  const ssize_t got = ::recvmsg(socket, &message, MSG_PEEK | MSG_DONTWAIT);
  if (got <= 0) return {};
  return {.bytes = static_cast<size_t>(got), .has_fds = (message.msg_flags & MSG_CTRUNC) != 0};
}

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

// ---- Framer

size_t Framer::wanted() const {
  if (position_ < sizeof header_) return sizeof header_ - position_;
  return std::min<uint64_t>(max_read, sizeof header_ + uint64_t{header_.size} - position_);
}

void Framer::begin() {
  message_ = {};
  message_.time = std::chrono::system_clock::now();
  message_.began = SeenMessage::Clock::now();
  told_ = false;
  header_ = {};
}

void Framer::feed(std::span<const std::byte> bytes, std::vector<PassedFd> fds, bool fds_lost) {
  if (position_ == 0) begin();
  for (PassedFd& fd : fds) {
    fd.offset = position_;
    message_.fds.push_back(std::move(fd));
  }
  message_.fds_lost |= fds_lost;
  if (position_ < sizeof header_)
    std::memcpy(reinterpret_cast<std::byte*>(&header_) + position_, bytes.data(), bytes.size());
  const size_t room = SeenMessage::max_kept - message_.bytes.size();
  const auto kept = bytes.first(std::min(room, bytes.size()));
  message_.bytes.insert(message_.bytes.end(), kept.begin(), kept.end());
  position_ += bytes.size();
  const bool complete = position_ >= sizeof header_ && position_ == sizeof header_ + uint64_t{header_.size};
  if (complete || (message_.bytes.size() == SeenMessage::max_kept && !told_)) {
    message_.complete = complete;
    finish();
  }
  if (complete) position_ = 0;
}

void Framer::finish() {
  if (std::exchange(told_, true)) return;
  message_.size = position_;
  message_.ended = SeenMessage::Clock::now();
  done_ = std::move(message_);
  message_ = {};
}

std::optional<SeenMessage> Framer::take() { return std::exchange(done_, std::nullopt); }

std::optional<SeenMessage> Framer::take_unfinished() {
  if (position_ > 0) finish();
  return take();
}

std::optional<SeenMessage::Clock::time_point> Framer::began() const {
  if (position_ == 0 || told_) return std::nullopt;
  return message_.began;
}

// ---- Pump

Pump::Pump(int from, int to, Intercept intercept) : from_(from), to_(to), intercept_(std::move(intercept)) {
  // File descriptors shall be all that comes with bytes, whatever the sender of a socket has set on it.
  constexpr int no = 0;
  for (const int option : {SO_PASSCRED, SO_PASSSEC, so_passpidfd})
    ::setsockopt(from_, SOL_SOCKET, option, &no, sizeof no);
}

bool Pump::wants_to_read() const {
  if (ended_) return false;
  // What is undecided keeps everything waiting, until the rest of a header's first field.
  return undecided_ || (waiting_bytes_ < max_waiting_bytes && waiting_fds_ < max_waiting_fds &&
                        waiting_.size() < max_waiting_pieces);
}

// What is there of one message goes on in one piece, as most peers send it.
void Pump::read() {
  size_t at_once = 0;
  while (wants_to_read()) {
    const size_t got = read_piece(at_once > 0);
    at_once += got;
    if (got == 0 || framer_.position() == 0 || at_once >= max_at_once) break;
  }
  write();
}

// Returns how many bytes came. `goes_on`: they belong to the piece before.
size_t Pump::read_piece(bool goes_on) {
  std::array<std::byte, max_read> buffer;
  const auto wanted = std::span(buffer).first(framer_.wanted());
  user::Ancillary ancillary;
  iovec whole{.iov_base = buffer.data(), .iov_len = up_to_fds(wanted)};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  ancillary.make_room(message);
  const ssize_t got = ::recvmsg(from_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && would_block(errno)) return 0;
  if (got <= 0) {
    end();
    return 0;
  }
  const auto came = wanted.first(static_cast<size_t>(got));
  Piece piece{.bytes = {came.begin(), came.end()}, .fds = user::Ancillary::take_fds(message)};
  accept(std::move(piece), goes_on, (message.msg_flags & MSG_CTRUNC) != 0);
  return came.size();
}

// How much may be read at once so that file descriptors stay with the byte they were sent with: the kernel
// gives them together with bytes that came before them. One byte comes with its own only.
size_t Pump::up_to_fds(std::span<std::byte> buffer) const {
  const Peeked all = peek(from_, buffer);
  if (!all.has_fds) return std::max<size_t>(1, all.bytes);
  if (peek(from_, buffer.first(1)).has_fds) return 1;
  size_t without = 1;  // so many bytes come without any
  size_t with = all.bytes;
  while (with - without > 1) {
    const size_t half = without + (with - without) / 2;
    (peek(from_, buffer.first(half)).has_fds ? with : without) = half;
  }
  return without;
}

void Pump::accept(Piece piece, bool goes_on, bool fds_lost) {
  std::vector<PassedFd> seen;
  seen.reserve(piece.fds.size());
  for (const UniqueFd& fd : piece.fds) seen.push_back({.what = describe_fd(fd.get())});
  if (intercept_ && !piece.fds.empty() && framer_.position() < sizeof(user::Header) && !undecided_) {
    undecided_ = true;
    carrier_ = waiting_.size();  // nothing leaves the queue until it is decided
  }
  framer_.feed(piece.bytes, std::move(seen), fds_lost);
  waiting_bytes_ += piece.bytes.size();
  waiting_fds_ += piece.fds.size();
  if (goes_on && piece.fds.empty()) {
    std::vector<std::byte>& before = waiting_.back().bytes;
    before.insert(before.end(), piece.bytes.begin(), piece.bytes.end());
  } else {
    waiting_.push_back(std::move(piece));
  }
  decide();
}

// File descriptors wait until the first field of their header says whose they are.
void Pump::decide() {
  const bool in_header = framer_.position() > 0 && framer_.header_bytes() < sizeof(uint32_t);
  if (!undecided_ || in_header) return;
  undecided_ = false;
  if (framer_.request() == set_backend_req_fd) intercept_(waiting_.at(carrier_).fds.front());
}

void Pump::write() {
  while (wants_to_write()) {
    Piece& piece = waiting_.front();
    const Result<size_t> sent = send(piece);
    if (!sent) {  // nobody is there to read any more
      waiting_.clear();
      waiting_bytes_ = waiting_fds_ = 0;
      return end();
    }
    if (*sent == 0) return;
    waiting_fds_ -= piece.fds.size();
    piece.fds.clear();
    piece.sent += *sent;
    waiting_bytes_ -= *sent;
    if (piece.sent == piece.bytes.size()) waiting_.pop_front();
  }
  if (is_over() && !std::exchange(shut_, true)) ::shutdown(to_, SHUT_WR);
}

// 0 bytes: the other side takes nothing now.
Result<size_t> Pump::send(const Piece& piece) const {
  user::Ancillary ancillary;
  iovec whole{.iov_base = const_cast<std::byte*>(piece.bytes.data()) + piece.sent,
              .iov_len = piece.bytes.size() - piece.sent};
  msghdr message{.msg_iov = &whole, .msg_iovlen = 1};
  ancillary.attach(message, piece.fds);
  const ssize_t sent = ::sendmsg(to_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && would_block(errno)) return size_t{0};
  if (sent < 0) return os_failure("cannot pass a message on");
  return static_cast<size_t>(sent);
}

void Pump::end() {
  ended_ = true;
  undecided_ = false;
  if (waiting_.empty() && !std::exchange(shut_, true)) ::shutdown(to_, SHUT_WR);
}

}  // namespace ringway::tools
