// ReadCounter: how often each byte of a range is read by instrumented code: every load and every memcpy, by
// address and size, from -fsanitize-coverage=trace-loads and -Wl,--wrap=memcpy. One range at a time; one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ringway::fuzz {

class ReadCounter {
 public:
  // Counts from here on, from zero.
  static void watch(const std::byte* base, size_t size);
  static void stop();
  // Of each byte since watch().
  static std::span<const uint8_t> counts();
};

}  // namespace ringway::fuzz
