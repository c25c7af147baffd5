// What a file descriptor that passes is. Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ringway::tools {

enum class FdKind : uint8_t { eventfd, memfd, file, device, socket, pipe, userfaultfd, directory, other };

[[nodiscard]] std::string_view fd_kind_name(FdKind kind);

struct FdInfo {
  FdKind kind = FdKind::other;
  std::string name;  // of a memfd, the path of a file or device, the type of a socket; may be empty
  uint64_t id = 0;   // the same for the same open object: eventfd id, else inode; 0: unknown
  std::optional<uint64_t> bytes;  // size of a file
};

// Asks the kernel only; nothing is read from the file.
[[nodiscard]] FdInfo describe_fd(int fd);

}  // namespace ringway::tools
