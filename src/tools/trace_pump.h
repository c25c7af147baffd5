// Pump: one direction of one connection, passed on byte for byte and file descriptor for file descriptor, and
// cut into messages on the way. Nothing waits for a message to be whole, and nothing blocks. Owned by the
// tap's thread.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/tools/trace_message.h"

namespace ringway::tools {

// Cuts a stream into messages by their headers alone, so that it goes on after anything malformed.
class Framer {
 public:
  // Bytes until the next boundary, header or payload: what may be read at once.
  [[nodiscard]] size_t wanted() const;
  void feed(std::span<const std::byte> bytes, std::vector<PassedFd> fds, bool fds_lost);
  // A message that is complete, or has grown beyond what is kept of one; it is told once.
  std::optional<SeenMessage> take();
  // What there is of a message that goes on arriving, or never will; its rest is not told.
  std::optional<SeenMessage> take_unfinished();

  [[nodiscard]] size_t header_bytes() const { return std::min(position_, sizeof(user::Header)); }
  [[nodiscard]] uint64_t position() const { return position_; }  // in the present message
  [[nodiscard]] uint32_t request() const { return header_.request; }
  // When the present message began, if it has and was not told.
  [[nodiscard]] std::optional<SeenMessage::Clock::time_point> began() const;

 private:
  void begin();
  void finish();

  user::Header header_;
  uint64_t position_ = 0;
  bool told_ = false;
  SeenMessage message_;
  std::optional<SeenMessage> done_;
};

class Pump {
 public:
  // May replace the file descriptor that comes with SET_BACKEND_REQ_FD.
  using Intercept = std::function<void(UniqueFd&)>;

  // Both file descriptors outlive the pump.
  Pump(int from, int to, Intercept intercept);

  [[nodiscard]] bool wants_to_read() const;
  [[nodiscard]] bool wants_to_write() const { return !waiting_.empty() && !undecided_; }
  // One read's worth, passed on at once as far as the other side takes it.
  void read();
  void write();
  [[nodiscard]] bool is_over() const { return ended_ && waiting_.empty(); }
  [[nodiscard]] bool has_ended() const { return ended_; }  // nothing more comes
  void end();                                              // nothing more is to be read
  Framer& framer() { return framer_; }

 private:
  struct Piece {
    std::vector<std::byte> bytes;
    std::vector<UniqueFd> fds;
    size_t sent = 0;
  };
  // What the other side has not taken. One read may go beyond it.
  static constexpr size_t max_waiting_bytes = 256 * 1024;
  static constexpr size_t max_waiting_fds = 1000;
  static constexpr size_t max_waiting_pieces = 4096;

  [[nodiscard]] size_t up_to_fds(std::span<std::byte> buffer) const;
  size_t read_piece(bool goes_on);
  void accept(Piece piece, bool goes_on, bool fds_lost);
  void decide();
  Result<size_t> send(const Piece& piece) const;

  const int from_;
  const int to_;
  const Intercept intercept_;
  Framer framer_;
  std::deque<Piece> waiting_;
  size_t waiting_bytes_ = 0;
  size_t waiting_fds_ = 0;
  bool undecided_ = false;  // file descriptors came before it is known with which message
  size_t carrier_ = 0;      // in which piece
  bool ended_ = false;
  bool shut_ = false;
};

}  // namespace ringway::tools
