// Errors as the kernel's interface has them: every one is an errno. Any thread.
#pragma once

#include "ringway/base/result.h"

namespace ringway::kernel {

inline std::unexpected<Error> no(int error, const char* why) { return os_failure(why, error); }

// What a device has said, as the kernel would: what it refuses without an errno of its own gets `otherwise`.
template <class T>
Result<T> as_errno(Result<T> result, int otherwise) {
  if (result || result.error().fault == Fault::os) return result;
  Error error = result.error();
  error.fault = Fault::os;
  error.os_error = otherwise;
  return std::unexpected(error);
}

}  // namespace ringway::kernel
