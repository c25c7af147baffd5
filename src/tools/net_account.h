// What became of the frames that were sent: order, loss, duplicates. Each object is owned by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ringway::tools {

// The sequence numbers of one flow as they arrive at one queue.
class Arrivals {
 public:
  // How far back it is remembered which frames have come.
  static constexpr uint64_t memory = uint64_t{1} << 16;

  enum class Kind : uint8_t {
    in_order,
    late,       // a later one has come before
    duplicate,  // it has come before; or it is older than we remember
  };
  Arrivals() : seen_(memory / 64) {}
  Kind see(uint64_t sequence);

 private:
  [[nodiscard]] uint64_t& word(uint64_t sequence) { return seen_[sequence % memory / 64]; }
  static uint64_t mask(uint64_t sequence) { return uint64_t{1} << sequence % 64; }
  void forget(uint64_t begin, uint64_t end);

  uint64_t next_ = 0;           // one more than the highest
  std::vector<uint64_t> seen_;  // bits, by sequence number modulo memory
};

struct NetAccount {
  uint64_t sent = 0;
  uint64_t received = 0;    // of those sent
  uint64_t late = 0;        // of those received
  uint64_t duplicates = 0;  // likewise
  uint64_t changed = 0;     // likewise: other bytes or another length than were sent
  uint64_t foreign = 0;     // not of this run, and in no other number here

  // Frames that have never come.
  [[nodiscard]] uint64_t lost() const {
    const uint64_t distinct = received - duplicates;
    return sent > distinct ? sent - distinct : 0;
  }
  [[nodiscard]] bool flawless() const { return lost() + late + duplicates + changed == 0; }
  void add(const NetAccount& other);
};

}  // namespace ringway::tools
