// Histogram: how often which value was seen, in buckets that grow with the value. Owned by one thread.
//
// Values below 2^(precision_bits + 1) are counted exactly. Above, every power of two is cut into
// 2^precision_bits buckets of equal width, and a bucket stands for its middle: a percentile is off by at most
// 1 / 2^(precision_bits + 1) of its value, 0.4 %. Minimum, maximum and mean are exact. Values of 2^max_bits
// and more are counted in the last bucket. Memory is taken at construction and never again.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ringway::tools {

class Histogram {
 public:
  static constexpr unsigned precision_bits = 7;
  static constexpr unsigned max_bits = 40;  // 18 minutes, in nanoseconds

  Histogram();

  void record(uint64_t value) {
    ++buckets_[bucket_of(value)];
    ++count_;
    sum_ += value;
    if (value < min_) min_ = value;
    if (value > max_) max_ = value;
  }
  void add(const Histogram& other);
  void clear();

  [[nodiscard]] uint64_t count() const { return count_; }
  [[nodiscard]] uint64_t min() const { return count_ == 0 ? 0 : min_; }
  [[nodiscard]] uint64_t max() const { return max_; }
  [[nodiscard]] double mean() const;
  // The smallest value (within the error above) that at least `percent` of all values do not exceed. 0 if
  // there is none.
  [[nodiscard]] uint64_t percentile(double percent) const;

 private:
  static constexpr size_t per_octave = size_t{1} << precision_bits;
  static constexpr size_t bucket_count = (max_bits - precision_bits + 1) * per_octave;

  static size_t bucket_of(uint64_t value) {
    if (value >> max_bits != 0) return bucket_count - 1;
    // The value's leading precision_bits + 1 bits, and how far they were shifted down.
    const unsigned width = static_cast<unsigned>(std::bit_width(value | per_octave));
    const unsigned shift = width - precision_bits - 1;
    return shift * per_octave + (value >> shift);
  }
  static uint64_t middle_of(size_t bucket);

  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
  uint64_t sum_ = 0;  // nanoseconds: 584 years of waiting
};

}  // namespace ringway::tools
