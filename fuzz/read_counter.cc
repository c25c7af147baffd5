// Compiled without the instrumentation that it serves.
#include "fuzz/read_counter.h"

#include <algorithm>
#include <vector>

namespace ringway::fuzz {
namespace {

const std::byte* watched = nullptr;
size_t watched_size = 0;
std::vector<uint8_t>& reads() {
  static std::vector<uint8_t> all;
  return all;
}

void count(const void* at, size_t size) {
  if (watched == nullptr) return;
  const auto* first = static_cast<const std::byte*>(at);
  for (size_t i = 0; i < size; ++i) {
    const auto offset = static_cast<size_t>(first + i - watched);
    if (offset < watched_size && reads()[offset] < UINT8_MAX) ++reads()[offset];
  }
}

}  // namespace

void ReadCounter::watch(const std::byte* base, size_t size) {
  watched = nullptr;
  reads().assign(size, 0);
  watched = base;
  watched_size = size;
}

void ReadCounter::stop() { watched = nullptr; }

std::span<const uint8_t> ReadCounter::counts() { return reads(); }

}  // namespace ringway::fuzz

extern "C" {
void __sanitizer_cov_trace_pc() {}
void __sanitizer_cov_load1(const void* at) { ringway::fuzz::count(at, 1); }
void __sanitizer_cov_load2(const void* at) { ringway::fuzz::count(at, 2); }
void __sanitizer_cov_load4(const void* at) { ringway::fuzz::count(at, 4); }
void __sanitizer_cov_load8(const void* at) { ringway::fuzz::count(at, 8); }
void __sanitizer_cov_load16(const void* at) { ringway::fuzz::count(at, 16); }

void* __real_memcpy(void* to, const void* from, size_t size);
void* __wrap_memcpy(void* to, const void* from, size_t size) {
  ringway::fuzz::count(from, size);
  return __real_memcpy(to, from, size);
}
void* __real_memmove(void* to, const void* from, size_t size);
void* __wrap_memmove(void* to, const void* from, size_t size) {
  ringway::fuzz::count(from, size);
  return __real_memmove(to, from, size);
}
}
