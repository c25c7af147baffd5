// Frame: one vhost-user message as it is on the socket, header, payload and file descriptors. A value; any
// thread. vhost-user "Message Specification".
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <vector>

#include "ringway/base/unique_fd.h"

namespace ringway::user {

inline constexpr uint32_t version_mask = 0x3;
inline constexpr uint32_t version = 0x1;
inline constexpr uint32_t reply_flag = 0x4;
inline constexpr uint32_t need_reply_flag = 0x8;
inline constexpr size_t max_fds = 8;         // of one message
inline constexpr size_t max_payload = 4096;  // bytes; the largest is a crypto session

// Native byte order. Flag bits 4 to 31 have no meaning; they are ignored when received and never sent.
struct Header {
  uint32_t request = 0;
  uint32_t flags = version;
  uint32_t size = 0;  // bytes of payload

  [[nodiscard]] bool is_reply() const { return (flags & reply_flag) != 0; }
  [[nodiscard]] bool needs_reply() const { return (flags & need_reply_flag) != 0; }
  bool operator==(const Header&) const = default;
};
static_assert(sizeof(Header) == 12 && std::is_trivially_copyable_v<Header>);

struct Frame {
  Header header;
  std::vector<std::byte> payload;  // header.size bytes
  std::vector<UniqueFd> fds;
  const char* fd_fault =
      nullptr;  // set: file descriptors came that cannot be accepted, for this reason; all are closed
};

// Sees every frame that passes, bit-exact, before anything is decided about it. Called on the connection's
// thread.
enum class Direction : uint8_t { received, sent };
using FrameObserver = std::function<void(Direction, const Frame&)>;

}  // namespace ringway::user
