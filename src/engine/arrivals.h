// Arrivals: the chains of one ring whose memory is still to come (postcopy). Owned by the ring's worker.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "ringway/ring/chain.h"

namespace ringway::engine {

class Arrivals {
 public:
  // Without `any_order` chains come out in the order in which they went in.
  Arrivals(uint32_t ring_size, bool any_order)
      : chains_(ring_size), here_(ring_size), any_order_(any_order) {}

  void add(ring::Chain chain) {
    const uint16_t index = chain.index();
    chains_[index] = std::move(chain);
    here_[index] = false;
    if (!any_order_) order_.push_back(index);
  }
  // All memory of the chain is here.
  void arrived(uint16_t index) {
    here_[index] = true;
    if (any_order_) order_.push_back(index);
  }
  // The next one that may be processed; an empty one: none.
  ring::Chain next() {
    if (order_.empty() || !here_[order_.front()]) return {};
    ring::Chain chain = std::move(chains_[order_.front()]);
    order_.pop_front();
    return chain;
  }

 private:
  std::vector<ring::Chain> chains_;  // by index
  std::vector<bool> here_;           // likewise
  std::deque<uint16_t> order_;
  const bool any_order_;
};

}  // namespace ringway::engine
