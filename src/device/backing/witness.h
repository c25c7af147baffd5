// A backing in front of another that tells on it: whether a write is done again after its driver was told
// that it is done. For tests that kill back-ends (`ringway bench --witness`): the account is a file that both
// sides map, so it outlives the one that is killed. The driver notes what was acknowledged, the back-end what
// it does.
//
// Every sector that such a driver writes begins with a Tag; writes without one are passed on unseen.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "ringway/base/mapping.h"
#include "ringway/device/backing/backing.h"

namespace ringway::backing {

// The first bytes of a written sector, as tools/pattern.h fills them in.
struct WitnessTag {
  uint64_t magic = 0;
  uint64_t seed = 0;
  uint64_t offset = 0;      // bytes, on the disk
  uint64_t generation = 0;  // counts up with each write of the place
};

// The account, mapped from its file. Any thread; every number is one atomic word.
class Testimony {
 public:
  // Makes the file, for `blocks` of `block_bytes` each from byte `offset` of the disk on.
  static Result<Testimony> make(const std::string& path, const WitnessTag& first, uint32_t block_bytes,
                                uint64_t blocks);
  static Result<Testimony> open(const std::string& path);

  // The driver has been told that this write is done.
  void acknowledge(uint64_t offset, uint64_t generation);
  // The write is about to be done.
  void witness(const WitnessTag& tag);
  [[nodiscard]] uint64_t executed() const;  // writes
  [[nodiscard]] uint64_t repeated() const;  // of these, after they or later ones were acknowledged

 private:
  enum Word : size_t { magic, seed, offset, block_bytes, blocks, executions, repetitions, first_block };
  explicit Testimony(Mapping mapping) : mapping_(std::move(mapping)) {}
  [[nodiscard]] uint64_t word(size_t index) const;
  [[nodiscard]] std::byte* at(size_t index) const { return mapping_.data() + index * sizeof(uint64_t); }
  // Where a block's acknowledged generation is; null: not in the account.
  [[nodiscard]] std::byte* block_at(uint64_t disk_offset) const;
  Mapping mapping_;
};

// The file at `path` must exist when the first lane is opened.
std::unique_ptr<Backing> with_witness(std::unique_ptr<Backing> next, std::string path);

}  // namespace ringway::backing
