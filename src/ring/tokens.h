// Tokens: the chains that a driver has given to a device, and the judge of what the device gives back. Owned
// by the driver's thread. Nothing is allocated after construction.
#pragma once

#include <cstdint>
#include <vector>

#include "ringway/base/result.h"

namespace ringway::ring {

// A chain that came back.
struct Used {
  uint16_t token = 0;     // what add() returned
  bool overlong = false;  // the device claims to have written more than the chain holds
  uint32_t written =
      0;  // bytes at the start of the writable part that may be trusted to be new; never more than it holds
};

class Tokens {
 public:
  struct Entry {
    uint64_t sequence = 0;  // place among all chains that were ever added
    uint64_t writable = 0;  // bytes
    uint16_t descriptors = 0;
    uint16_t last = 0;  // split: the last descriptor of the chain
    bool busy = false;
  };

  Tokens(uint32_t size, bool in_order) : entries_(size), order_(in_order ? size : 0) {}

  void add(uint16_t token, uint32_t descriptors, uint16_t last, uint64_t writable);
  void publish() { published_ = added_; }
  [[nodiscard]] uint64_t unpublished() const { return added_ - published_; }
  [[nodiscard]] uint64_t outstanding() const { return published_ - taken_; }  // published and not taken
  [[nodiscard]] uint64_t in_flight() const { return added_ - taken_; }

  // The device says that chain `id` is used, which in order means all older ones too. An error: it lies.
  Result<> accept(uint32_t id, uint32_t written);
  // Chains that were accepted and not taken.
  [[nodiscard]] uint32_t accepted() const { return accepted_; }
  // One must be.
  Used take();
  // What was known of a chain that has been taken, until its token is added again.
  [[nodiscard]] const Entry& last_of(uint16_t token) const { return entries_[token]; }

 private:
  // In the ring of `order_`: no division, for it is done for every chain.
  void step(uint32_t& position) const { position = position + 1 == order_.size() ? 0 : position + 1; }

  std::vector<Entry> entries_;
  std::vector<uint16_t> order_;  // in order: tokens by sequence
  uint32_t order_begin_ = 0;     // of the oldest that was not taken
  uint32_t order_end_ = 0;       // where the next is added
  uint64_t added_ = 0;
  uint64_t published_ = 0;
  uint64_t taken_ = 0;
  uint32_t accepted_ = 0;
  uint32_t written_ = 0;  // for the last of the accepted ones
  uint16_t token_ = 0;    // likewise
};

}  // namespace ringway::ring
