// One message as the tap has seen it pass: bytes, file descriptors, times. A value; any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ringway/tools/trace_fd.h"
#include "ringway/user/fields.h"
#include "ringway/user/frame.h"

namespace ringway::tools {

enum class Channel : uint8_t { main, back_end };  // the back-end channel: that of SET_BACKEND_REQ_FD
enum class Side : uint8_t { front_end, back_end };

struct PassedFd {
  FdInfo what;
  uint64_t offset = 0;  // bytes of the message before it; not 0 is a fault
};

struct SeenMessage {
  using Clock = std::chrono::steady_clock;
  static constexpr size_t max_kept = sizeof(user::Header) + 8192;  // bytes of one message

  uint32_t session = 0;  // from 1
  uint64_t number = 0;   // in its session, from 1
  Channel channel = Channel::main;
  Side from = Side::front_end;
  std::chrono::system_clock::time_point time;  // of its first byte
  Clock::time_point began;                     // likewise
  Clock::time_point ended;                     // of its last
  std::vector<std::byte> bytes;                // header and payload as they came, at most max_kept
  uint64_t size = 0;                           // bytes that came
  bool complete = false;                       // all that its header says has come
  std::vector<PassedFd> fds;
  bool fds_lost = false;  // more came than this process could take
  // Of a reply, found by who reads the conversation.
  std::optional<uint64_t> answers;  // the number of its request
  std::optional<Clock::duration> reply_time;

  [[nodiscard]] bool has_header() const { return bytes.size() >= sizeof(user::Header); }
  [[nodiscard]] user::Header header() const;  // zeros behind what has come
  [[nodiscard]] std::span<const std::byte> payload() const;
  // By its place in the conversation, whatever its flags say.
  [[nodiscard]] bool is_reply() const { return (channel == Channel::main) == (from == Side::back_end); }

  [[nodiscard]] const char* name() const;  // "SET_VRING_NUM"
  [[nodiscard]] bool is_known() const;
  [[nodiscard]] user::Layout layout() const;
  [[nodiscard]] const user::Message* row() const;  // null: unknown
};

}  // namespace ringway::tools
