// IovaMap: what the program behind a vhost-vdpa file has mapped for its device, by I/O virtual address. A
// mapping is as many memory regions as the program's memory is made of there. Control thread.
#pragma once

#include <cstdint>
#include <vector>

#include "ringway/memory/map.h"

namespace ringway::kernel {

class IovaMap {
 public:
  struct Mapping {
    uint64_t iova = 0;
    uint64_t size = 0;                          // bytes, more than 0; ends within 64 bits
    std::vector<memory::RegionLayout> regions;  // their guest addresses are iova and on, without gaps
  };

  [[nodiscard]] bool has_any_in(uint64_t iova, uint64_t size) const;
  // Where has_any_in() says no.
  void add(Mapping mapping) { mappings_.push_back(std::move(mapping)); }
  // Those that have anything in the range, as a whole; they are mapped no more.
  std::vector<Mapping> take(uint64_t iova, uint64_t size);
  // The front-end address behind [iova, iova + length), all of which must be mapped and lie in one piece.
  [[nodiscard]] Result<uint64_t> front_end(uint64_t iova, uint64_t length) const;
  [[nodiscard]] bool empty() const { return mappings_.empty(); }

 private:
  [[nodiscard]] const memory::RegionLayout* find(uint64_t iova) const;
  std::vector<Mapping> mappings_;
};

}  // namespace ringway::kernel
