// Input: the bytes of one run, eaten from the front; behind their end everything reads as zero.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace ringway::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const auto from = bytes(sizeof value);
    std::memcpy(&value, from.data(), from.size());
    return value;
  }
  // At most `count` bytes: what is left.
  std::span<const std::byte> bytes(size_t count) {
    const auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  // A part with a length of its own before it.
  Input part() {
    const auto inner = bytes(take<uint8_t>());
    return {reinterpret_cast<const uint8_t*>(inner.data()), inner.size()};
  }
  [[nodiscard]] bool empty() const { return rest_.empty(); }
  [[nodiscard]] size_t size() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

// A finding: prints why and aborts, so that the input is kept.
[[noreturn]] inline void found(const char* what, const char* file, int line) {
  __builtin_printf("%s:%d: %s\n", file, line, what);
  __builtin_trap();
}

}  // namespace ringway::fuzz

#define FUZZ_CHECK(condition) \
  ((condition) ? void() : ::ringway::fuzz::found("violated: " #condition, __FILE__, __LINE__))
