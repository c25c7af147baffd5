// Result and Error: how every function of Ringway reports failure. Any thread.
#pragma once

#include <cerrno>
#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace ringway {

// Who is at fault, which is also what is done about it. Only the server (user/server.h) turns a fault into an
// action.
enum class Fault : uint8_t {
  violation,  // the peer broke the protocol: close the connection
  refused,    // well-formed, but no: non-zero reply if one is due, and go on
  gone,       // the peer left
  os,         // the operating system said no: os_error holds the errno
};

// Trivially copyable; `what` and `subject` point at strings with static storage.
struct Error {
  Fault fault = Fault::refused;
  int os_error = 0;          // errno, only with Fault::os
  const char* what = "";     // reason, in plain words
  const char* subject = "";  // what it is about, a message's name for example; may be empty
  uint64_t value = 0;        // the offending value, shown if has_value
  bool has_value = false;

  // "SET_VRING_NUM: ring size is not a power of two (300)"
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] Error about(const char* name) const;  // a copy with `subject` set where it was empty
};

template <class T = void>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> violation(const char* what) {
  return std::unexpected(Error{.fault = Fault::violation, .what = what});
}
[[nodiscard]] inline std::unexpected<Error> violation(const char* what, uint64_t value) {
  return std::unexpected(Error{.fault = Fault::violation, .what = what, .value = value, .has_value = true});
}
[[nodiscard]] inline std::unexpected<Error> refused(const char* what) {
  return std::unexpected(Error{.fault = Fault::refused, .what = what});
}
[[nodiscard]] inline std::unexpected<Error> refused(const char* what, uint64_t value) {
  return std::unexpected(Error{.fault = Fault::refused, .what = what, .value = value, .has_value = true});
}
[[nodiscard]] inline std::unexpected<Error> gone(const char* what) {
  return std::unexpected(Error{.fault = Fault::gone, .what = what});
}
[[nodiscard]] inline std::unexpected<Error> os_failure(const char* what, int error = errno) {
  return std::unexpected(Error{.fault = Fault::os, .os_error = error, .what = what});
}

}  // namespace ringway

// The value of a Result, or return its error from the enclosing function. May be nested.
#define TRY(...) RINGWAY_TRY_AS(RINGWAY_JOIN(try_result_, __COUNTER__), __VA_ARGS__)
#define RINGWAY_TRY_AS(name, ...)                               \
  __extension__({                                               \
    auto&& name = (__VA_ARGS__);                                \
    if (!name) return std::unexpected(std::move(name).error()); \
    *std::move(name);                                           \
  })
#define RINGWAY_JOIN(a, b) RINGWAY_JOIN_NOW(a, b)
#define RINGWAY_JOIN_NOW(a, b) a##b
