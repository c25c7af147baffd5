// What the parts of each message are called: the payloads of message.h field by field, for those who show
// messages instead of obeying them, whatever their size is. Any thread. The table for both channels is at the
// end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ringway/user/message.h"

namespace ringway::user {

// How a field is to be shown.
enum class Show : uint8_t {
  number,
  hex,                // addresses, and whatever is made of bits without names here
  padding,            // not at all, unless it is not zero
  features,           // VIRTIO bits
  protocol_features,  // VHOST_USER_PROTOCOL_F_*
  ring_and_fd,        // bits 0 to 7 a ring, bit 8: no file descriptor
  error_and_fd,       // bits 0 to 7 an error, bit 8: no file descriptor
  success,            // 0: done
  device_status,      // VIRTIO "Device Status Field"
  iotlb_type,
  permission,  // bits of memory::Access
  mac,         // in the first 6 bytes
  uuid,        // 16 bytes
};

struct Field {
  const char* name = "";
  uint8_t size = 0;  // bytes: 1, 2, 4, 8, or 16 for a UUID
  Show show = Show::number;
};

// A payload: `fixed`, then as many `repeated` as there is room for, then bytes. If the payload has exactly
// the size of `shorter`, it is that instead.
struct Layout {
  std::span<const Field> fixed;
  std::span<const Field> repeated;
  const char* repeated_name = "";
  const char* rest = "";  // what bytes behind are called; empty: there should be none
  std::span<const Field> shorter;
};

struct FieldValue {
  Field field;
  uint64_t number = 0;               // if size is at most 8
  std::span<const std::byte> bytes;  // of the payload
};

struct FieldValues {
  std::vector<FieldValue> fixed;
  std::vector<std::vector<FieldValue>> repeated;
  std::span<const std::byte> rest;  // whatever is left
  bool is_short = false;            // the payload ends before its fields do
};

// Views into `payload`.
[[nodiscard]] FieldValues read_fields(const Layout& layout, std::span<const std::byte> payload);

[[nodiscard]] constexpr size_t size_of(std::span<const Field> fields) {
  size_t size = 0;
  for (const Field& field : fields) size += field.size;
  return size;
}

// ---- the fields, in the order of the wire

namespace fields {
inline constexpr auto features = std::to_array<Field>({{"features", 8, Show::features}});
inline constexpr auto protocol = std::to_array<Field>({{"protocol_features", 8, Show::protocol_features}});
inline constexpr auto result = std::to_array<Field>({{"result", 8, Show::success}});
inline constexpr auto table = std::to_array<Field>({{"regions", 4}, {"padding", 4, Show::padding}});
inline constexpr auto region =
    std::to_array<Field>({{"guest", 8, Show::hex}, {"size", 8}, {"user", 8, Show::hex}, {"offset", 8}});
inline constexpr auto one_region = std::to_array<Field>({{"padding", 8, Show::padding},
                                                         {"guest", 8, Show::hex},
                                                         {"size", 8},
                                                         {"user", 8, Show::hex},
                                                         {"offset", 8}});
inline constexpr auto log = std::to_array<Field>({{"size", 8}, {"offset", 8}});
inline constexpr auto log_address = std::to_array<Field>({{"base", 8, Show::hex}});
inline constexpr auto ring_size = std::to_array<Field>({{"ring", 4}, {"size", 4}});
inline constexpr auto ring_base = std::to_array<Field>({{"ring", 4}, {"base", 4}});
inline constexpr auto ring = std::to_array<Field>({{"ring", 4}, {"padding", 4, Show::padding}});
inline constexpr auto ring_addresses = std::to_array<Field>({{"ring", 4},
                                                             {"flags", 4, Show::hex},
                                                             {"descriptors", 8, Show::hex},
                                                             {"used", 8, Show::hex},
                                                             {"available", 8, Show::hex},
                                                             {"log", 8, Show::hex}});
inline constexpr auto ring_fd = std::to_array<Field>({{"ring", 8, Show::ring_and_fd}});
inline constexpr auto ring_enable = std::to_array<Field>({{"ring", 4}, {"enable", 4}});
inline constexpr auto ring_endian = std::to_array<Field>({{"ring", 4}, {"big_endian", 4}});
inline constexpr auto queues = std::to_array<Field>({{"queues", 8}});
inline constexpr auto slots = std::to_array<Field>({{"slots", 8}});
inline constexpr auto mac = std::to_array<Field>({{"mac", 8, Show::mac}});
inline constexpr auto mtu = std::to_array<Field>({{"mtu", 8}});
inline constexpr auto iotlb = std::to_array<Field>({{"iova", 8, Show::hex},
                                                    {"size", 8},
                                                    {"user", 8, Show::hex},
                                                    {"permission", 1, Show::permission},
                                                    {"type", 1, Show::iotlb_type},
                                                    {"padding", 6, Show::padding}});
inline constexpr auto config = std::to_array<Field>({{"offset", 4}, {"size", 4}, {"flags", 4, Show::hex}});
inline constexpr auto session = std::to_array<Field>({{"session", 8}});
inline constexpr auto inflight = std::to_array<Field>(
    {{"size", 8}, {"offset", 8}, {"queues", 2}, {"queue_size", 2}, {"padding", 4, Show::padding}});
inline constexpr auto status = std::to_array<Field>({{"status", 8, Show::device_status}});
inline constexpr auto object = std::to_array<Field>({{"uuid", 16, Show::uuid}});
inline constexpr auto transfer = std::to_array<Field>({{"direction", 4}, {"phase", 4}});
inline constexpr auto channel = std::to_array<Field>({{"error", 8, Show::error_and_fd}});
inline constexpr auto shmem_config = std::to_array<Field>({{"regions", 4}, {"padding", 4, Show::padding}});
inline constexpr auto shmem_size = std::to_array<Field>({{"size", 8}});
inline constexpr auto ring_area =
    std::to_array<Field>({{"ring", 8, Show::ring_and_fd}, {"size", 8}, {"offset", 8}});
inline constexpr auto shmem_range = std::to_array<Field>({{"shmid", 1},
                                                          {"padding", 7, Show::padding},
                                                          {"fd_offset", 8},
                                                          {"shm_offset", 8},
                                                          {"length", 8},
                                                          {"flags", 8, Show::hex}});

struct Both {
  Layout request = {};
  Layout reply = {.fixed = result};
};

// clang-format off: a message to a line
template <class Request> inline constexpr std::array<Both, std::variant_size_v<Request>> of;

template <> inline constexpr std::array<Both, 45> of<vhost::DeviceRequest>{{
    {.reply = {.fixed = features}},
    {.request = {.fixed = features}},
    {},
    {},
    {.request = {.fixed = table, .repeated = region, .repeated_name = "region"},
     .reply = {.fixed = table, .repeated = region, .repeated_name = "region", .shorter = result}},
    {.request = {.fixed = log, .shorter = log_address}},
    {},
    {.request = {.fixed = ring_size}},
    {.request = {.fixed = ring_addresses}},
    {.request = {.fixed = ring_base}},
    {.request = {.fixed = ring}, .reply = {.fixed = ring_base}},
    {.request = {.fixed = ring_fd}},
    {.request = {.fixed = ring_fd}},
    {.request = {.fixed = ring_fd}},
    {.reply = {.fixed = protocol}},
    {.request = {.fixed = protocol}},
    {.reply = {.fixed = queues}},
    {.request = {.fixed = ring_enable}},
    {.request = {.fixed = mac}},
    {.request = {.fixed = mtu}},
    {},
    {.request = {.fixed = iotlb}},
    {.request = {.fixed = ring_endian}},
    {.request = {.fixed = config, .rest = "bytes"}, .reply = {.fixed = config, .rest = "bytes"}},
    {.request = {.fixed = config, .rest = "bytes"}},
    {.request = {.rest = "bytes"}, .reply = {.rest = "bytes"}},
    {.request = {.fixed = session}},
    {.reply = {}},
    {},
    {},
    {.request = {.fixed = inflight}, .reply = {.fixed = inflight}},
    {.request = {.fixed = inflight}},
    {},
    {},
    {.request = {.fixed = ring}},
    {.reply = {.fixed = slots}},
    {.request = {.fixed = one_region}, .reply = {.fixed = one_region, .shorter = result}},
    {.request = {.fixed = one_region}},
    {.request = {.fixed = status}},
    {.reply = {.fixed = status}},
    {.request = {.fixed = object}, .reply = {.rest = "bytes", .shorter = result}},
    {.request = {.fixed = transfer}, .reply = {.fixed = channel}},
    {},
    {.reply = {.fixed = shmem_config, .repeated = shmem_size, .repeated_name = "sizes"}},
    {.request = {.fixed = ring}, .reply = {.fixed = ring_base}},
}};

template <> inline constexpr std::array<Both, 10> of<vhost::FrontEndRequest>{{
    {.request = {.fixed = iotlb}},
    {},
    {.request = {.fixed = ring_area}},
    {.request = {.fixed = ring}},
    {.request = {.fixed = ring}},
    {.request = {.fixed = object}},
    {.request = {.fixed = object}},
    {.request = {.fixed = object}},
    {.request = {.fixed = shmem_range}},
    {.request = {.fixed = shmem_range}},
}};
// clang-format on

// That a layout is the one of this payload, as far as sizes tell.
consteval bool fits(const Layout& layout, Payload payload) {
  const SizeRule rule = size_rule(payload);
  const size_t fixed = size_of(layout.fixed);
  const bool has_more = !layout.repeated.empty() || *layout.rest != '\0';
  if (!layout.shorter.empty() && !rule.allows(size_of(layout.shorter))) return false;
  if (has_more) return fixed <= rule.max;
  return fixed == rule.max && (!layout.shorter.empty() || rule.or_nothing || fixed == rule.min);
}

template <class Request>
consteval bool fit() {
  for (size_t i = 0; i < of<Request>.size(); ++i) {
    if (!fits(of<Request>[i].request, messages<Request>[i].request)) return false;
    // An acknowledgement may be empty in one message.
    const Payload reply = messages<Request>[i].reply_payload;
    if (!fits(of<Request>[i].reply, reply)) return false;
  }
  return true;
}
static_assert(fit<vhost::DeviceRequest>() && fit<vhost::FrontEndRequest>());
}  // namespace fields

// Of a message without a name: bytes.
template <class Request>
constexpr Layout request_layout(uint32_t id) {
  return find_message<Request>(id) == nullptr ? Layout{.rest = "bytes"} : fields::of<Request>[id - 1].request;
}
template <class Request>
constexpr Layout reply_layout(uint32_t id) {
  return find_message<Request>(id) == nullptr ? Layout{.rest = "bytes"} : fields::of<Request>[id - 1].reply;
}

}  // namespace ringway::user
