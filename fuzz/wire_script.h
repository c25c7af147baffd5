// WireScript: what a hostile peer sends over a socket, byte by byte: sends with file descriptors of all kinds
// attached at any byte, and how much of it each receive gets. Everything is in the socket before our code
// reads. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "fuzz/input.h"
#include "ringway/base/unique_fd.h"

namespace ringway::fuzz {

// A connected pair: ours is for the code under test.
struct Sockets {
  UniqueFd ours;
  UniqueFd theirs;
  Sockets();
};

class WireScript {
 public:
  // Reads the sends from the input, and the sizes of our receives (none: as much as is wanted). `memory`, if
  // it is open, is what a passed memory file is.
  WireScript(Input& input, const UniqueFd& memory);
  ~WireScript();
  WireScript(const WireScript&) = delete;
  WireScript& operator=(const WireScript&) = delete;

  // Sends all that fits and ends the stream. What comes back is not read.
  void play(const UniqueFd& socket);

 private:
  struct Send {
    std::vector<std::byte> bytes;
    std::vector<uint8_t> fds;  // kinds
  };
  void read_raw(Input& input);
  void read_message(Input& input);
  std::vector<Send> sends_;
  const UniqueFd& memory_;
};

// A file descriptor of one of many kinds, good and bad.
UniqueFd make_fd(uint8_t kind, const UniqueFd& memory);

// The lowest file descriptor number that is free: what is left open raises it.
int lowest_free_fd();

}  // namespace ringway::fuzz
