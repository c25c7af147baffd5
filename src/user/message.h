// The table of all messages as they are on the socket: payload, file descriptors and reply of each. Any
// thread. vhost-user "Front-end message types", "Back-end message types". Names and what must be negotiated:
// vhost/catalogue.h.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>
#include <variant>

#include "ringway/user/frame.h"
#include "ringway/vhost/catalogue.h"

namespace ringway::user {

// Shapes of payloads. The layout of each is in codec.cc.
enum class Payload : uint8_t {
  none,
  u64,
  u64_or_nothing,
  vring_state,
  vring_address,
  memory_table,
  memory_region,
  u64_or_table,
  u64_or_region,
  log,
  iotlb,
  config,
  config_or_nothing,
  vring_area,
  inflight,
  object,
  object_or_nothing,
  device_state,
  crypto_session,
  shmem_range,
  shmem_config,
};

struct SizeRule {
  uint32_t min = 0;
  uint32_t max = 0;
  uint32_t step = 1;  // from min
  bool or_nothing = false;
  const char* otherwise = "";

  [[nodiscard]] constexpr bool allows(size_t size) const {
    return (or_nothing && size == 0) || (size >= min && size <= max && (size - min) % step == 0);
  }
};

// Sizes in bytes, as the C structures of LP64 hosts are put on the wire: padding at their end included.
constexpr SizeRule size_rule(Payload payload) {
  constexpr uint32_t table = 8 + 8 * 32;
  switch (payload) {
    case Payload::none:
      return {.otherwise = "payload must be empty"};
    case Payload::u64:
      return {8, 8, 1, false, "payload must be 8 bytes"};
    case Payload::u64_or_nothing:
      return {8, 8, 1, true, "payload must be 8 bytes or empty"};
    case Payload::vring_state:
      return {8, 8, 1, false, "payload must be 8 bytes"};
    case Payload::vring_address:
      return {40, 40, 1, false, "payload must be 40 bytes"};
    case Payload::memory_table:
      return {8, table, 32, false, "payload must be 8 bytes and 32 for each of at most 8 regions"};
    case Payload::memory_region:
      return {40, 40, 1, false, "payload must be 40 bytes"};
    case Payload::u64_or_table:
      return {8, table, 32, false, "payload must be 8 bytes or a memory table"};
    case Payload::u64_or_region:
      return {8, 40, 32, false, "payload must be 8 or 40 bytes"};
    case Payload::log:
      return {8, 16, 8, false, "payload must be 8 or 16 bytes"};
    case Payload::iotlb:
      return {32, 32, 1, false, "payload must be 32 bytes"};
    case Payload::config:
      return {12, 12 + 256, 1, false, "payload must be 12 bytes and at most 256 of configuration space"};
    case Payload::config_or_nothing:
      return {12, 12 + 256, 1, true,
              "payload must be empty, or 12 bytes and at most 256 of configuration space"};
    case Payload::vring_area:
      return {24, 24, 1, false, "payload must be 24 bytes"};
    case Payload::inflight:
      return {24, 24, 1, false, "payload must be 24 bytes"};
    case Payload::object:
      return {16, 16, 1, false, "payload must be 16 bytes"};
    case Payload::object_or_nothing:
      return {8, 16, 8, true, "payload must be empty, 8 or 16 bytes"};
    case Payload::device_state:
      return {8, 8, 1, false, "payload must be 8 bytes"};
    case Payload::crypto_session:
      return {8, max_payload, 1, false, "payload must be 8 to 4096 bytes"};
    case Payload::shmem_range:
      return {40, 40, 1, false, "payload must be 40 bytes"};
    case Payload::shmem_config:
      return {2056, 2056, 1, false, "payload must be 2056 bytes"};
  }
  return {};
}

// File descriptors of a request. Fewer or more than the rule says are refused, and all are closed.
enum class Fds : uint8_t {
  none,
  one,
  ring,     // one, or none if bit 8 of the payload is set
  regions,  // one for each region, in their order
  log,      // one, or none in the form without LOG_SHMFD
  stray,    // none; one is closed unused (some front-ends send it with REM_MEM_REG)
};

struct FdRule {
  uint32_t min = 0;
  uint32_t max = 0;
  const char* otherwise = "";
};

constexpr FdRule fd_rule(Fds fds) {
  switch (fds) {
    case Fds::none:
      return {0, 0, "no file descriptor may come with it"};
    case Fds::one:
      return {1, 1, "exactly one file descriptor must come with it"};
    case Fds::ring:
      return {0, 1, "at most one file descriptor may come with it"};
    case Fds::regions:
      return {0, max_fds, "one file descriptor must come with each region"};
    case Fds::log:
      return {0, 1, "at most one file descriptor may come with it"};
    case Fds::stray:
      return {0, 1, "at most one file descriptor may come with it"};
  }
  return {};
}

// What is answered, and how a refusal is said.
enum class Reply : uint8_t {
  ack,              // u64, 0 or not; only with REPLY_ACK and need_reply
  status,           // u64, 0 or not; always
  log_status,       // as status with LOG_SHMFD, else as ack
  memory,           // as ack; in postcopy the regions with the back-end's addresses
  value,            // its own payload, always; there is no way to refuse but to close
  value_or_refusal  // its own payload, always; an empty or special value refuses
};

// What a reply may carry, if it is none of the u64 of an ack or a status.
struct Message {
  uint32_t id = 0;
  Payload request = Payload::none;
  Fds fds = Fds::none;
  Reply reply = Reply::ack;
  Payload reply_payload = Payload::u64;
  bool reply_fd = false;  // one file descriptor may come with the reply
};

// clang-format off: a message to a line
template <class Request> inline constexpr std::array<Message, std::variant_size_v<Request>> messages;

template <> inline constexpr std::array<Message, 45> messages<vhost::DeviceRequest>{{
    {.id = 1,  .reply = Reply::value},
    {.id = 2,  .request = Payload::u64},
    {.id = 3},
    {.id = 4},
    {.id = 5,  .request = Payload::memory_table, .fds = Fds::regions, .reply = Reply::memory, .reply_payload = Payload::u64_or_table},
    {.id = 6,  .request = Payload::log, .fds = Fds::log, .reply = Reply::log_status, .reply_payload = Payload::u64_or_nothing},
    {.id = 7,  .fds = Fds::one},
    {.id = 8,  .request = Payload::vring_state},
    {.id = 9,  .request = Payload::vring_address},
    {.id = 10, .request = Payload::vring_state},
    {.id = 11, .request = Payload::vring_state, .reply = Reply::value, .reply_payload = Payload::vring_state},
    {.id = 12, .request = Payload::u64, .fds = Fds::ring},
    {.id = 13, .request = Payload::u64, .fds = Fds::ring},
    {.id = 14, .request = Payload::u64, .fds = Fds::ring},
    {.id = 15, .reply = Reply::value},
    {.id = 16, .request = Payload::u64},
    {.id = 17, .reply = Reply::value},
    {.id = 18, .request = Payload::vring_state},
    {.id = 19, .request = Payload::u64},
    {.id = 20, .request = Payload::u64},
    {.id = 21, .fds = Fds::one},
    {.id = 22, .request = Payload::iotlb, .reply = Reply::status},
    {.id = 23, .request = Payload::vring_state},
    {.id = 24, .request = Payload::config, .reply = Reply::value_or_refusal, .reply_payload = Payload::config_or_nothing},
    {.id = 25, .request = Payload::config},
    {.id = 26, .request = Payload::crypto_session, .reply = Reply::value, .reply_payload = Payload::crypto_session},
    {.id = 27, .request = Payload::u64},
    {.id = 28, .reply = Reply::value_or_refusal, .reply_payload = Payload::none, .reply_fd = true},
    {.id = 29},
    {.id = 30, .reply = Reply::status},
    {.id = 31, .request = Payload::inflight, .reply = Reply::value_or_refusal, .reply_payload = Payload::inflight, .reply_fd = true},
    {.id = 32, .request = Payload::inflight, .fds = Fds::one},
    {.id = 33, .fds = Fds::one},
    {.id = 34},
    {.id = 35, .request = Payload::vring_state},
    {.id = 36, .reply = Reply::value},
    {.id = 37, .request = Payload::memory_region, .fds = Fds::one, .reply = Reply::memory, .reply_payload = Payload::u64_or_region},
    {.id = 38, .request = Payload::memory_region, .fds = Fds::stray},
    {.id = 39, .request = Payload::u64},
    {.id = 40, .reply = Reply::value},
    {.id = 41, .request = Payload::object, .reply = Reply::value_or_refusal, .reply_payload = Payload::object_or_nothing, .reply_fd = true},
    {.id = 42, .request = Payload::device_state, .fds = Fds::one, .reply = Reply::value_or_refusal, .reply_fd = true},
    {.id = 43, .reply = Reply::value_or_refusal},
    {.id = 44, .reply = Reply::value, .reply_payload = Payload::shmem_config},
    {.id = 45, .request = Payload::vring_state, .reply = Reply::value, .reply_payload = Payload::vring_state},
}};

template <> inline constexpr std::array<Message, 10> messages<vhost::FrontEndRequest>{{
    {.id = 1,  .request = Payload::iotlb},
    {.id = 2},
    {.id = 3,  .request = Payload::vring_area, .fds = Fds::ring},
    {.id = 4,  .request = Payload::vring_state},
    {.id = 5,  .request = Payload::vring_state},
    {.id = 6,  .request = Payload::object},
    {.id = 7,  .request = Payload::object},
    {.id = 8,  .request = Payload::object, .reply = Reply::value_or_refusal, .reply_fd = true},
    {.id = 9,  .request = Payload::shmem_range, .fds = Fds::one},
    {.id = 10, .request = Payload::shmem_range},
}};
// clang-format on

template <class Request>
consteval bool in_order() {
  uint32_t expected = 1;
  for (const Message& message : messages<Request>) {
    if (message.id != expected++ || size_rule(message.request).max > max_payload) return false;
    if (size_rule(message.reply_payload).max > max_payload || fd_rule(message.fds).max > max_fds)
      return false;
    const bool is_ack = message.reply == Reply::ack || message.reply == Reply::status;
    if (is_ack && (message.reply_payload != Payload::u64 || message.reply_fd)) return false;
  }
  return true;
}
static_assert(in_order<vhost::DeviceRequest>() && in_order<vhost::FrontEndRequest>());

// The id of an alternative of Request.
template <class Request, class Alternative>
inline constexpr uint32_t id_of = vhost::index_of<Request, Alternative> + 1;
static_assert(id_of<vhost::DeviceRequest, vhost::SetVringNum> == 8 &&
              id_of<vhost::DeviceRequest, vhost::GetVringBaseSkipDrain> == 45);
static_assert(id_of<vhost::FrontEndRequest, vhost::IotlbFault> == 1 &&
              id_of<vhost::FrontEndRequest, vhost::ShmemUnmap> == 10);

// Null: no such message.
template <class Request>
constexpr const Message* find_message(uint32_t id) {
  return id >= 1 && id <= messages<Request>.size() ? &messages<Request>[id - 1] : nullptr;
}

// "SET_VRING_NUM"; "unknown message" for what is none.
template <class Request>
constexpr const char* message_name(uint32_t id) {
  return find_message<Request>(id) != nullptr ? vhost::catalogue<Request>[id - 1].name : "unknown message";
}

}  // namespace ringway::user
