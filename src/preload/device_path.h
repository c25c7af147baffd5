// Which paths are that of /dev/vhost-net: that name, and any other way to the same directory. Not followed
// are symbolic links to the file itself. Any thread, and between vfork() and exec.
#pragma once

#include <array>
#include <string_view>

namespace ringway::preload {

constexpr std::string_view net_path = "/dev/vhost-net";

// `folder` as openat() takes it. Cheap for files of other names. Changes errno.
[[nodiscard]] bool is_net_path(int folder, std::string_view path);

// A copy of a path that may be anywhere in memory, or not be there.
class PathText {
 public:
  static constexpr size_t limit = 256;  // bytes, the last of them 0

  // Changes errno.
  explicit PathText(const char* path);
  // Empty: it is longer, or not there.
  [[nodiscard]] std::string_view get() const { return {text_.data(), size_}; }

 private:
  std::array<char, limit> text_{};
  size_t size_ = 0;
};

}  // namespace ringway::preload
