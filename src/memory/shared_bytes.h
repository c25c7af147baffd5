// The only loads, stores and copies that touch memory shared with a peer. Each byte is read once, into a copy
// that the peer cannot change afterwards: the compiler may not read it a second time. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ringway::memory {

// One naturally aligned load. T is 1, 2, 4 or 8 bytes.
template <class T>
[[nodiscard]] T load(const std::byte* at, std::memory_order order = std::memory_order_relaxed) {
  static_assert(std::is_integral_v<T>);
  // atomic_ref wants a mutable object; a load does not write.
  return std::atomic_ref<T>(*reinterpret_cast<T*>(const_cast<std::byte*>(at))).load(order);  // NOLINT
}

template <class T>
void store(std::byte* at, T value, std::memory_order order = std::memory_order_relaxed) {
  static_assert(std::is_integral_v<T>);
  std::atomic_ref<T>(*reinterpret_cast<T*>(at)).store(value, order);  // NOLINT
}

// Starts to load the cache line of `at` for a store: without it the line comes shared, and the store waits
// for it to become ours.
inline void prefetch_for_store(const void* at) {
#ifdef __x86_64__
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
#else
  __builtin_prefetch(at, 1);
#endif
}

// Copies out of shared memory. The barrier keeps the compiler from reading `from` again in place of the copy.
inline void copy_out(void* to, const void* from, size_t length) {
  std::memcpy(to, from, length);
  asm volatile("" ::: "memory");
}

inline void copy_in(void* to, const void* from, size_t length) {
  asm volatile("" ::: "memory");
  std::memcpy(to, from, length);
}

}  // namespace ringway::memory
