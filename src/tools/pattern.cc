#include "ringway/tools/pattern.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

namespace ringway::tools {
namespace {

constexpr size_t sector_bytes = 512;
constexpr size_t header_words = 4;
using Sector = std::array<uint64_t, sector_bytes / 8>;
constexpr uint64_t magic = pattern_magic;

constexpr uint8_t scrubbed_byte = 0xdb;
constexpr uint64_t scrubbed = uint64_t{0x0101'0101'0101'0101} * scrubbed_byte;

// The finalizer of SplitMix64: neighbouring inputs give unrelated outputs.
uint64_t mix(uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58'476d'1ce4'e5b9;
  value = (value ^ value >> 27) * 0x94d0'49bb'1331'11eb;
  return value ^ value >> 31;
}

Sector make(const Tag& tag) {
  Sector sector{magic, tag.seed, tag.offset, tag.generation};
  uint64_t state = mix(tag.seed ^ mix(tag.offset ^ mix(tag.generation)));
  for (size_t word = header_words; word < sector.size(); ++word) {
    state += 0x9e37'79b9'7f4a'7c15;
    sector[word] = mix(state);
  }
  return sector;
}

bool is_all(const Sector& sector, uint64_t value) {
  return std::ranges::all_of(sector, [&](uint64_t word) { return word == value; });
}

Verdict classify(const Sector& found, const Tag& expected) {
  if (is_all(found, scrubbed)) return Verdict::untouched;
  if (is_all(found, 0)) return Verdict::zeros;
  if (found[0] != magic || found[1] != expected.seed) return Verdict::foreign;
  if (found[2] != expected.offset) return Verdict::misplaced;
  if (found != make({.seed = found[1], .offset = found[2], .generation = found[3]})) return Verdict::torn;
  return found[3] < expected.generation ? Verdict::stale : Verdict::newer;
}

}  // namespace

std::string_view describe(Verdict verdict) {
  switch (verdict) {
    case Verdict::right:
      return "right";
    case Verdict::untouched:
      return "untouched: nothing was read into the buffer";
    case Verdict::zeros:
      return "zeros: never written, or lost";
    case Verdict::stale:
      return "stale: an earlier write to the same place";
    case Verdict::newer:
      return "newer: a write to the same place that was not the last one";
    case Verdict::misplaced:
      return "misplaced: a write to another place";
    case Verdict::torn:
      return "torn: part of a write";
    case Verdict::foreign:
      return "foreign: not written by this run";
  }
  return "";
}

void fill(std::span<std::byte> block, const Tag& tag) {
  assert(block.size() % sector_bytes == 0);
  for (size_t at = 0; at < block.size(); at += sector_bytes) {
    const Sector sector = make({.seed = tag.seed, .offset = tag.offset + at, .generation = tag.generation});
    std::memcpy(block.data() + at, sector.data(), sector_bytes);
  }
}

void scrub(std::span<std::byte> block) { std::memset(block.data(), scrubbed_byte, block.size()); }

Diagnosis examine(std::span<const std::byte> block, const Tag& tag) {
  assert(block.size() % sector_bytes == 0);
  for (size_t at = 0; at < block.size(); at += sector_bytes) {
    const Tag expected{.seed = tag.seed, .offset = tag.offset + at, .generation = tag.generation};
    const Sector wanted = make(expected);
    if (std::memcmp(block.data() + at, wanted.data(), sector_bytes) == 0) continue;
    Sector found;
    std::memcpy(found.data(), block.data() + at, sector_bytes);
    return {.verdict = classify(found, expected),
            .offset = expected.offset,
            .found = {.seed = found[1], .offset = found[2], .generation = found[3]}};
  }
  return {};
}

}  // namespace ringway::tools
