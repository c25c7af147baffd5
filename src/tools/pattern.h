// Pattern: what `bench --verify` writes, so that a block read back proves where, when and by which run it was
// written. Any thread.
//
// Every sector of 512 bytes is eight bytes each of: a constant, the run's seed, the byte offset of the sector
// on the disk, the generation of its write; and then pseudo-random bytes that depend on those three.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ringway::tools {

struct Tag {
  uint64_t seed = 0;        // of the run
  uint64_t offset = 0;      // bytes, on the disk
  uint64_t generation = 0;  // counts up with each write; never 0
};

enum class Verdict : uint8_t {
  right,
  untouched,  // the buffer is as scrub() has left it: nothing was read into it
  zeros,      // nothing but zeros
  stale,      // an earlier generation of this place
  newer,      // a generation of this place that was not acknowledged last
  misplaced,  // from another place on the disk
  torn,       // the right beginning, and then something else
  foreign,    // not of this run
};
inline constexpr size_t verdict_count = 8;

// What every sector begins with; seed, offset and generation follow.
inline constexpr uint64_t pattern_magic = 0x5941'5747'4e49'5221;  // "!RINGWAY"

// "stale: an earlier write to the same place"
[[nodiscard]] std::string_view describe(Verdict verdict);

// `block` is a multiple of 512 bytes; `tag.offset` is of its first byte.
void fill(std::span<std::byte> block, const Tag& tag);

// Before a read, so that what an earlier request has left in the buffer is not taken for what was read.
void scrub(std::span<std::byte> block);

struct Diagnosis {
  Verdict verdict = Verdict::right;
  uint64_t offset = 0;  // of the first wrong sector, bytes, on the disk
  Tag found;            // what that sector says of itself, for stale, newer, misplaced and torn
};
// `block` must not change meanwhile: a copy of what came out of shared memory.
[[nodiscard]] Diagnosis examine(std::span<const std::byte> block, const Tag& tag);

}  // namespace ringway::tools
