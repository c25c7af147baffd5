#include "ringway/tools/trace_format.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using user::FieldValue;
using user::FieldValues;
using user::Show;
using vhost::bit;
using Json = nlohmann::ordered_json;

constexpr uint64_t ring_mask = 0xff;
constexpr uint64_t no_fd = 0x100;
constexpr size_t max_bytes_shown = 64;  // of the text, not of JSON

std::string hex_of(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte one : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(one));
  return text;
}

std::vector<std::string> names_of_bits(uint64_t bits, const std::function<std::string(unsigned)>& name) {
  std::vector<std::string> names;
  for (unsigned number = 0; number < 64; ++number) {
    if ((bits & bit(number)) != 0) names.push_back(name(number));
  }
  return names;
}

std::vector<std::string> feature_names(uint64_t bits, const DeviceType* type) {
  return names_of_bits(bits, [type](unsigned number) { return feature_name(type, number); });
}

std::vector<std::string> protocol_names(uint64_t bits) {
  return names_of_bits(bits, [](unsigned number) {
    const std::string_view name = vhost::protocol_feature_name(number);
    return name.empty() ? fmt::format("bit {}", number) : std::string(name);
  });
}

// VIRTIO "Device Status Field".
std::vector<std::string> status_names(uint64_t bits) {
  static constexpr std::array<std::string_view, 8> names{
      "ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK", "", "", "DEVICE_NEEDS_RESET", "FAILED"};
  return names_of_bits(bits, [](unsigned number) {
    const std::string_view name = number < names.size() ? names[number] : std::string_view{};
    return name.empty() ? fmt::format("bit {}", number) : std::string(name);
  });
}

// Names of what is a set of bits; nothing for other fields.
std::optional<std::vector<std::string>> bit_names(const FieldValue& value, const DeviceType* type) {
  if (value.field.show == Show::features) return feature_names(value.number, type);
  if (value.field.show == Show::protocol_features) return protocol_names(value.number);
  if (value.field.show == Show::device_status) return status_names(value.number);
  return std::nullopt;
}

std::string word_of(const FieldValue& value) {
  static constexpr std::array<std::string_view, 5> iotlb_types{"", "miss", "update", "invalidate",
                                                               "access_fail"};
  static constexpr std::array<std::string_view, 4> permissions{"none", "read", "write", "read and write"};
  const uint64_t n = value.number;
  if (value.field.show == Show::iotlb_type && n > 0 && n < iotlb_types.size())
    return std::string(iotlb_types[n]);
  if (value.field.show == Show::permission && n < permissions.size()) return std::string(permissions[n]);
  return fmt::format("{}", n);
}

std::string mac_text(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte one : bytes.first(6))
    text += fmt::format("{}{:02x}", text.empty() ? "" : ":", static_cast<unsigned>(one));
  return text;
}

// The first three groups are big-endian numbers, so the bytes are in the order of the text.
std::string uuid_text(std::span<const std::byte> bytes) {
  std::string text = hex_of(bytes);
  for (const size_t at : {20, 16, 12, 8}) text.insert(at, "-");
  return text;
}

std::string value_text(const FieldValue& value, const DeviceType* type) {
  const uint64_t n = value.number;
  if (const auto names = bit_names(value, type)) return fmt::format("{:#x} ({})", n, fmt::join(*names, " "));
  switch (value.field.show) {
    case Show::hex:
    case Show::padding:
      return fmt::format("{:#x}", n);
    case Show::ring_and_fd:
    case Show::error_and_fd: {
      const uint64_t strange = n & ~(ring_mask | no_fd);
      return fmt::format("{}{}{}", n & ring_mask, (n & no_fd) != 0 ? " without fd" : "",
                         strange != 0 ? fmt::format(" and bits {:#x}", strange) : "");
    }
    case Show::success:
      return n == 0 ? "done" : fmt::format("failed ({})", n);
    case Show::mac:
      return mac_text(value.bytes);
    case Show::uuid:
      return uuid_text(value.bytes);
    default:
      return word_of(value);
  }
}

bool is_shown(const FieldValue& value) { return value.field.show != Show::padding || value.number != 0; }

std::string fields_text(const std::vector<FieldValue>& values, const DeviceType* type) {
  std::string text;
  for (const FieldValue& value : values) {
    if (is_shown(value))
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", value.field.name, value_text(value, type));
  }
  return text;
}

// What another process has named may hold anything.
std::string printable(std::string_view text) {
  std::string safe;
  for (const char c : text) safe += std::isprint(static_cast<unsigned char>(c)) != 0 ? c : '?';
  return safe;
}

std::string fd_text(const PassedFd& fd) {
  std::string text(fd_kind_name(fd.what.kind));
  if (!fd.what.name.empty()) text += fmt::format(" {}", printable(fd.what.name));
  if (fd.what.bytes) text += fmt::format(" of {} bytes", *fd.what.bytes);
  if (fd.what.id != 0) text += fmt::format(" #{}", fd.what.id);
  if (fd.offset != 0) text += fmt::format(" at byte {}", fd.offset);
  return text;
}

std::string_view arrow(const SeenMessage& message) {
  const bool to_back_end = message.from == Side::front_end;
  if (message.channel == Channel::main) return to_back_end ? "->" : "<-";
  return to_back_end ? "=>" : "<=";
}

double milliseconds(SeenMessage::Clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

std::string reply_text(const SeenMessage& message) {
  if (!message.answers || !message.reply_time) return " reply";
  return fmt::format(" reply to {} after {:.3f} ms", *message.answers, milliseconds(*message.reply_time));
}

std::string flags_text(const SeenMessage& message) {
  const user::Header header = message.header();
  std::string text;
  if (!message.is_reply() && header.needs_reply()) text += " need_reply";
  const uint32_t usual = message.is_reply() ? user::version | user::reply_flag
                                            : user::version | (header.flags & user::need_reply_flag);
  if (header.flags != usual) text += fmt::format(" flags {:#x}", header.flags);
  return text;
}

std::string head_text(const SeenMessage& message) {
  std::string text =
      fmt::format("{} {} {} {}", clock_text(message.time), message.session, arrow(message), message.number);
  if (!message.has_header()) return text + " part of a header";
  text += message.is_known() ? fmt::format(" {}", message.name())
                             : fmt::format(" unknown message {}", message.header().request);
  if (message.is_reply()) text += reply_text(message);
  return text + flags_text(message);
}

Json value_json(const FieldValue& value, const DeviceType* type) {
  const uint64_t n = value.number;
  if (const auto names = bit_names(value, type))
    return {{"bits", fmt::format("{:#x}", n)}, {"names", *names}};
  switch (value.field.show) {
    case Show::number:
      return n;
    case Show::ring_and_fd:
    case Show::error_and_fd:
      return n & ring_mask;
    case Show::success:
      return n;
    default:
      return value_text(value, type);
  }
}

void add_fields(Json& to, const std::vector<FieldValue>& values, const DeviceType* type) {
  for (const FieldValue& value : values) {
    if (!is_shown(value)) continue;
    to[value.field.name] = value_json(value, type);
    const bool tells_of_fd = value.field.show == Show::ring_and_fd || value.field.show == Show::error_and_fd;
    if (tells_of_fd) to["no_fd"] = (value.number & no_fd) != 0;
  }
}

Json fields_json(const SeenMessage& message, const DeviceType* type) {
  const user::Layout layout = message.layout();
  const FieldValues values = user::read_fields(layout, message.payload());
  Json fields = Json::object();
  add_fields(fields, values.fixed, type);
  if (!values.repeated.empty()) {
    Json& all = fields[layout.repeated_name] = Json::array();
    for (const auto& one : values.repeated) add_fields(all.emplace_back(Json::object()), one, type);
  }
  if (!values.rest.empty()) fields[*layout.rest != '\0' ? layout.rest : "surplus"] = hex_of(values.rest);
  return fields;
}

Json fd_json(const PassedFd& fd) {
  Json json = {{"kind", fd_kind_name(fd.what.kind)}};
  if (!fd.what.name.empty()) json["name"] = fd.what.name;
  if (fd.what.bytes) json["bytes"] = *fd.what.bytes;
  if (fd.what.id != 0) json["id"] = fd.what.id;
  if (fd.offset != 0) json["offset"] = fd.offset;
  return json;
}

double since_epoch(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

}  // namespace

std::string clock_text(std::chrono::system_clock::time_point time) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  return fmt::format("{:%H:%M:%S}.{:06}", fmt::localtime(static_cast<std::time_t>(micros / 1'000'000)),
                     micros % 1'000'000);
}

std::string message_text(const SeenMessage& message, const DeviceType* type) {
  std::string text = head_text(message);
  if (!message.has_header()) return text + "\n";
  const user::Layout layout = message.layout();
  const FieldValues values = user::read_fields(layout, message.payload());
  const std::string fields = fields_text(values.fixed, type);
  if (!fields.empty()) text += ": " + fields;
  const bool is_zero = std::ranges::all_of(values.rest, [](std::byte one) { return one == std::byte{0}; });
  if (!values.rest.empty() && is_zero) {
    text += fmt::format("{} {} bytes of 0", fields.empty() ? ":" : ",", values.rest.size());
  } else if (!values.rest.empty()) {
    const auto shown = values.rest.first(std::min(values.rest.size(), max_bytes_shown));
    text += fmt::format("{} {} {}{}", fields.empty() ? ":" : ",",
                        *layout.rest != '\0' ? layout.rest : "surplus bytes", hex_of(shown),
                        shown.size() < values.rest.size() ? "..." : "");
  }
  if (!message.complete) text += fmt::format(" [{} bytes have come]", message.size);
  const bool fd_each = values.repeated.size() == message.fds.size();
  if (!fd_each) {
    for (const PassedFd& fd : message.fds) text += ", fd " + fd_text(fd);
  }
  text += "\n";
  for (size_t i = 0; i < values.repeated.size(); ++i) {
    // Of 256 sizes hardly any is not zero.
    const bool is_nothing = layout.repeated.size() == 1 && values.repeated[i].front().number == 0;
    if (is_nothing) continue;
    text += fmt::format("    {} {}: {}{}\n", layout.repeated_name, i, fields_text(values.repeated[i], type),
                        fd_each ? ", fd " + fd_text(message.fds[i]) : "");
  }
  return text;
}

std::string finding_text(const Finding& finding) {
  return fmt::format("    {} {} {}: {}\n", finding.level == Finding::Level::mistake ? "!!" : "! ",
                     finding.number, finding.name, finding.text);
}

Json message_json(const SeenMessage& message, const DeviceType* type) {
  const user::Header header = message.header();
  Json json = {{"time", since_epoch(message.time)},
               {"session", message.session},
               {"message", message.number},
               {"channel", message.channel == Channel::main ? "main" : "back-end"},
               {"from", message.from == Side::front_end ? "front-end" : "back-end"},
               {"complete", message.complete},
               {"bytes", message.size}};
  if (message.has_header()) {
    json["id"] = header.request;
    if (message.is_known()) json["name"] = message.name();
    json["reply"] = message.is_reply();
    json["need_reply"] = header.needs_reply();
    json["flags"] = header.flags;
    json["size"] = header.size;
    json["fields"] = fields_json(message, type);
  }
  json["fds"] = Json::array();
  for (const PassedFd& fd : message.fds) json["fds"].push_back(fd_json(fd));
  if (message.answers) json["answers"] = *message.answers;
  if (message.reply_time) json["reply_seconds"] = std::chrono::duration<double>(*message.reply_time).count();
  return json;
}

Json finding_json(uint32_t session, const Finding& finding) {
  return {{"session", session},
          {"about", finding.number},
          {"name", finding.name},
          {"level", finding.level == Finding::Level::mistake ? "mistake" : "odd"},
          {"finding", finding.text}};
}

std::string json_line(const Json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ringway::tools
