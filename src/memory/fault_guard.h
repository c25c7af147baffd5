// FaultGuard: what happens when a peer truncates a file that we have mapped and we touch it (SIGBUS). The
// mapping is replaced by private zero pages, so the access succeeds and the process lives; `broken` tells the
// owner. Thread rule: any thread; the signal handler itself is async-signal-safe and takes no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ringway::memory {

class FaultGuard {
 public:
  FaultGuard() = default;
  // Guards [base, base + size) from here until destruction. The first guard of a process installs the
  // handler.
  FaultGuard(std::byte* base, size_t size);
  FaultGuard(FaultGuard&& other) noexcept;
  FaultGuard& operator=(FaultGuard&& other) noexcept;
  ~FaultGuard();

  // A fault has happened in this range: what was read since may be zeros that no peer wrote.
  [[nodiscard]] bool broken() const;

  // Faults absorbed by all guards so far. Cheap; a change means that somebody's broken() may have become
  // true.
  [[nodiscard]] static uint64_t faults();

  struct Range;  // one entry of the handler's list

 private:
  Range* range_ = nullptr;
};

}  // namespace ringway::memory
