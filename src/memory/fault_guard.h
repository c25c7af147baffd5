// FaultGuard: what happens when memory that a peer also holds goes away under us. Thread rule: any thread;
// the signal handler itself is async-signal-safe and takes no lock.
//
// Mapped by us: a peer truncates the file, and we get SIGBUS. The mapping is replaced by private zero pages,
// so the access succeeds and the process lives; `broken` tells the owner.
// Borrowed, that is mapped by the program that we live in: it may unmap or protect it (SIGSEGV), or truncate
// its file (SIGBUS). Only the page in question is made accessible: a zero page where there is none, and write
// access to one that is protected, since the program gave it for reading and writing. Only on threads that
// work for a device: what the program's own threads do is not ours, and goes to its own handler.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ringway::memory {

class FaultGuard {
 public:
  FaultGuard() = default;
  // Guards [base, base + size), which we have mapped, from here until destruction. The first guard of a
  // process installs the handler.
  FaultGuard(std::byte* base, size_t size);
  static FaultGuard of_borrowed(std::byte* base, size_t size);
  FaultGuard(FaultGuard&& other) noexcept;
  FaultGuard& operator=(FaultGuard&& other) noexcept;
  ~FaultGuard();

  // A fault has happened in this range: what was read since may be zeros that no peer wrote.
  [[nodiscard]] bool broken() const;

  // Faults absorbed by all guards so far. Cheap; a change means that somebody's broken() may have become
  // true.
  [[nodiscard]] static uint64_t faults();

  // While it lives, this thread may touch borrowed memory.
  class Work {
   public:
    Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    ~Work();
  };
  // The same for good: a worker's thread.
  static void work_on_this_thread();

  struct Range;  // one entry of the handler's list

 private:
  enum class Owner : uint8_t { us, program };
  FaultGuard(std::byte* base, size_t size, Owner owner);
  Range* range_ = nullptr;
};

}  // namespace ringway::memory
