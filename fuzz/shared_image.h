// SharedImage: the memory that a hostile peer shares: three regions whose bytes come from the input, and
// everything that happens to them: changes while they are read, and a check of who wrote what. One per
// process; one thread but where said.
//
// Every access of our code to it is seen before it happens (-fsanitize-coverage=trace-loads), so a change can
// be made at an exact moment: what another thread does by chance, and repeatable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fuzz/input.h"
#include "ringway/memory/map.h"

namespace ringway::fuzz {

class SharedImage {
 public:
  // Two regions that touch in guest addresses but not in ours, and one behind a gap.
  static constexpr uint64_t gap = 0x3000;
  static constexpr uint64_t bytes = 0x6000;  // of all regions
  static constexpr uint64_t front_end_base = 0x7f00'0000'0000;

  static SharedImage& instance();

  [[nodiscard]] const std::shared_ptr<const memory::Map>& map() const { return map_; }
  // Guest address of the image's byte `offset`.
  [[nodiscard]] static uint64_t guest(uint64_t offset);

  // All zeros, then `content`; nobody has written anything.
  void fill(std::span<const std::byte> content);

  // Reads changes from the input: at the n-th load from the image, a byte becomes another.
  void script_changes(Input& input);
  // The same by a second thread, which starts now; stop_thread() before the next fill().
  void start_thread(Input& input);
  void stop_thread();
  [[nodiscard]] bool changes() const { return !changes_.empty(); }

  // Loads from the image since the last call.
  uint64_t take_load_count() { return std::exchange(load_count_, 0); }

  // What our code may write.
  void allow(const std::byte* at, size_t length);
  void allow_offset(uint64_t offset, uint64_t length);
  // The piece lies in a region as a whole.
  [[nodiscard]] bool contains(const std::byte* at, size_t length) const;
  // No byte has changed that was not allowed to.
  void check() const;

  void on_load(const std::byte* at);  // the hook's

 private:
  struct Part {
    std::byte* data = nullptr;
    uint64_t size = 0;
    uint64_t offset = 0;  // of its first byte in the image
  };
  struct Change {
    uint32_t when = 0;
    uint32_t where = 0;
    std::byte value{};
  };
  SharedImage();
  [[nodiscard]] const Part* part_of(const std::byte* at) const;
  [[nodiscard]] std::byte* at(uint64_t offset) const;
  void apply(const Change& change);
  std::vector<Change> read_changes(Input& input) const;

  std::shared_ptr<const memory::Map> map_;
  std::vector<Part> parts_;
  std::vector<std::byte> before_;
  std::vector<uint8_t> allowed_;
  std::vector<Change> changes_;
  size_t next_change_ = 0;
  uint64_t loads_ = 0;
  uint64_t load_count_ = 0;
  class Mutator;
  std::shared_ptr<Mutator> mutator_;
};

}  // namespace ringway::fuzz
