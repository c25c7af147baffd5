// Addresses that can be a program's. Any thread.
#pragma once

#include <cstdint>

namespace ringway::kernel {

// Below, nothing can be mapped as a rule (vm.mmap_min_addr), so what went away there could not be put back
// (memory::FaultGuard). Linux takes those too.
inline constexpr uint64_t user_space_begin = uint64_t{64} << 10U;
inline constexpr uint64_t user_space_end = (uint64_t{1} << 47U) - 4096;

inline bool is_user_range(uint64_t address, uint64_t size) {
  return address >= user_space_begin && size <= user_space_end && address <= user_space_end - size;
}

}  // namespace ringway::kernel
