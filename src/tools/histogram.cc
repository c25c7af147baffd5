#include "ringway/tools/histogram.h"

#include <algorithm>
#include <cmath>

namespace ringway::tools {

Histogram::Histogram() : buckets_(bucket_count) {}

void Histogram::add(const Histogram& other) {
  for (size_t bucket = 0; bucket < bucket_count; ++bucket) buckets_[bucket] += other.buckets_[bucket];
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

void Histogram::clear() {
  std::ranges::fill(buckets_, 0);
  count_ = sum_ = max_ = 0;
  min_ = UINT64_MAX;
}

double Histogram::mean() const {
  return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
}

uint64_t Histogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  const double share = std::clamp(percent, 0.0, 100.0) / 100;
  const auto rank = static_cast<uint64_t>(std::ceil(share * static_cast<double>(count_)));
  uint64_t seen = 0;
  size_t bucket = 0;
  while ((seen += buckets_[bucket]) < std::max<uint64_t>(rank, 1)) ++bucket;
  return std::clamp(middle_of(bucket), min_, max_);
}

uint64_t Histogram::middle_of(size_t bucket) {
  if (bucket < 2 * per_octave) return bucket;
  const size_t shift = bucket / per_octave - 1;
  const uint64_t low = (per_octave + bucket % per_octave) << shift;
  return low + (uint64_t{1} << shift) / 2;
}

}  // namespace ringway::tools
