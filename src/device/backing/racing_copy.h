// Copies for memory that several queues may read and write at once: a driver that sends overlapping requests
// gets bytes of either, as from any disk. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ringway::backing {

// Such a race is the driver's wish and not our error, but C++ knows no bytewise atomic memcpy. So: under
// ThreadSanitizer the bytes are copied one by one, as relaxed atomics, and it still finds every other race.
// Otherwise the C library copies; the length is not a constant, so the compiler does not look inside, and the
// barriers keep it from assuming anything of the bytes before and after.
#if defined(__SANITIZE_THREAD__)

inline void racing_copy(void* to, const void* from, size_t length) {
  auto* target = static_cast<unsigned char*>(to);
  auto* source =
      static_cast<unsigned char*>(const_cast<void*>(from));  // NOLINT: atomic_ref wants it, a load does not
  for (size_t i = 0; i < length; ++i) {
    std::atomic_ref(target[i]).store(std::atomic_ref(source[i]).load(std::memory_order_relaxed),
                                     std::memory_order_relaxed);
  }
}

inline void racing_zero(void* at, size_t length) {
  auto* target = static_cast<unsigned char*>(at);
  for (size_t i = 0; i < length; ++i) std::atomic_ref(target[i]).store(0, std::memory_order_relaxed);
}

#else

inline void racing_copy(void* to, const void* from, size_t length) {
  asm volatile("" ::: "memory");
  std::memcpy(to, from, length);
  asm volatile("" ::: "memory");
}

inline void racing_zero(void* at, size_t length) {
  asm volatile("" ::: "memory");
  std::memset(at, 0, length);
  asm volatile("" ::: "memory");
}

#endif

}  // namespace ringway::backing
