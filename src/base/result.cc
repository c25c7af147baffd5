#include "ringway/base/result.h"

#include <fmt/format.h>

#include <cstring>

namespace ringway {

std::string Error::to_string() const {
  std::string text;
  if (*subject != '\0') text = fmt::format("{}: ", subject);
  text += what;
  if (has_value) text += fmt::format(" ({0}, {0:#x})", value);
  if (os_error != 0) text += fmt::format(": {}", std::strerror(os_error));
  return text;
}

Error Error::about(const char* name) const {
  Error copy = *this;
  if (*copy.subject == '\0') copy.subject = name;
  return copy;
}

}  // namespace ringway
