// What the C functions are made of that the preloaded library puts in front of the C library's. Any thread,
// any time: even before constructors have run.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cerrno>

#define RINGWAY_HOOK extern "C" [[gnu::visibility("default")]]

namespace ringway::preload {

// The C library's own function of that name.
template <class Function>
Function* real(const char* name, std::atomic<Function*>& known) {
  Function* function = known.load(std::memory_order_acquire);
  if (function == nullptr) {
    function = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));  // NOLINT: what dlsym is for
    known.store(function, std::memory_order_release);
  }
  return function;
}
// NOLINTBEGIN(bugprone-macro-parentheses): a type, and names
#define RINGWAY_REAL(type, name)                         \
  ([]() -> type* {                                       \
    static constinit std::atomic<type*> known = nullptr; \
    return real<type>(#name, known);                     \
  }())

// NOLINTEND(bugprone-macro-parentheses)

template <class T>
T answer(T result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace ringway::preload
