// Fixed-endian integers for structures that a specification lays out. Any thread.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

namespace ringway {

template <std::unsigned_integral T, std::endian Order>
class Fixed {
 public:
  Fixed() = default;
  Fixed(T value) : raw_(convert(value)) {}      // NOLINT(google-explicit-constructor): it is the integer
  operator T() const { return convert(raw_); }  // NOLINT(google-explicit-constructor)

 private:
  static constexpr T convert(T value) { return Order == std::endian::native ? value : std::byteswap(value); }
  T raw_ = 0;
};

using le16 = Fixed<uint16_t, std::endian::little>;
using le32 = Fixed<uint32_t, std::endian::little>;
using le64 = Fixed<uint64_t, std::endian::little>;

}  // namespace ringway
