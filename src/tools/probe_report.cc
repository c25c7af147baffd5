#include "ringway/tools/probe_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "ringway/device/blk/config.h"
#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using nlohmann::ordered_json;
using vhost::bit;

constexpr int always = -1;  // a field that depends on no feature

struct Field {
  const char* name;  // as in the specification
  uint32_t offset;
  uint32_t bytes;
  int feature;
};

#define FIELD(name, feature) {#name, offsetof(blk::Config, name), sizeof(blk::Config::name), feature}
constexpr Field blk_fields[] = {
    FIELD(capacity, always),
    FIELD(size_max, VIRTIO_BLK_F_SIZE_MAX),
    FIELD(seg_max, VIRTIO_BLK_F_SEG_MAX),
    FIELD(cylinders, VIRTIO_BLK_F_GEOMETRY),
    FIELD(heads, VIRTIO_BLK_F_GEOMETRY),
    FIELD(sectors, VIRTIO_BLK_F_GEOMETRY),
    FIELD(blk_size, VIRTIO_BLK_F_BLK_SIZE),
    FIELD(physical_block_exp, VIRTIO_BLK_F_TOPOLOGY),
    FIELD(alignment_offset, VIRTIO_BLK_F_TOPOLOGY),
    FIELD(min_io_size, VIRTIO_BLK_F_TOPOLOGY),
    FIELD(opt_io_size, VIRTIO_BLK_F_TOPOLOGY),
    FIELD(writeback, VIRTIO_BLK_F_CONFIG_WCE),
    FIELD(num_queues, VIRTIO_BLK_F_MQ),
    FIELD(max_discard_sectors, VIRTIO_BLK_F_DISCARD),
    FIELD(max_discard_seg, VIRTIO_BLK_F_DISCARD),
    FIELD(discard_sector_alignment, VIRTIO_BLK_F_DISCARD),
    FIELD(max_write_zeroes_sectors, VIRTIO_BLK_F_WRITE_ZEROES),
    FIELD(max_write_zeroes_seg, VIRTIO_BLK_F_WRITE_ZEROES),
    FIELD(write_zeroes_may_unmap, VIRTIO_BLK_F_WRITE_ZEROES),
    FIELD(max_secure_erase_sectors, VIRTIO_BLK_F_SECURE_ERASE),
    FIELD(max_secure_erase_seg, VIRTIO_BLK_F_SECURE_ERASE),
    FIELD(secure_erase_sector_alignment, VIRTIO_BLK_F_SECURE_ERASE),
};
#undef FIELD

struct Value {
  const char* name;
  uint64_t value;
};

std::vector<Value> blk_values(const Findings& found) {
  std::vector<Value> values;
  for (const Field& field : blk_fields) {
    const bool offered =
        field.feature == always || (found.features & bit(static_cast<unsigned>(field.feature))) != 0;
    if (!offered || field.offset + field.bytes > found.config.size()) continue;
    uint64_t value = 0;  // little-endian, as this machine
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(&value, found.config.data() + field.offset, field.bytes);
    values.push_back({field.name, value});
  }
  return values;
}

bool is_blk(const Findings& found) { return found.type() != nullptr && found.type()->id == VIRTIO_ID_BLOCK; }

std::vector<std::string> feature_names(const Findings& found) {
  std::vector<std::string> names;
  for (unsigned number = 0; number < 64; ++number) {
    if ((found.features & bit(number)) != 0) names.push_back(feature_name(found.type(), number));
  }
  return names;
}

std::vector<std::string> protocol_names(const Findings& found) {
  std::vector<std::string> names;
  for (unsigned number = 0; number < 64; ++number) {
    if ((found.protocol.value_or(0) & bit(number)) == 0) continue;
    const std::string_view name = vhost::protocol_feature_name(number);
    names.push_back(name.empty() ? fmt::format("bit {}", number) : std::string(name));
  }
  return names;
}

std::vector<std::string_view> type_names(const Findings& found) {
  std::vector<std::string_view> names;
  for (const DeviceType* type : found.types) names.push_back(type->name);
  return names;
}

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

// ---- text
// ---------------------------------------------------------------------------------------------------------------

constexpr size_t text_width = 100;

std::string describe_type(const Findings& found) {
  if (found.types.empty()) return "unknown: its features tell nothing";
  if (found.type_is_certain) return fmt::format("{}, as you say", found.type()->name);
  return fmt::format("{}, judging by its features", fmt::join(type_names(found), " or "));
}

std::string describe_program(const Findings& found) {
  if (found.pid == 0) return "not visible from here";
  return fmt::format("{} (pid {})", found.program.empty() ? "?" : found.program, found.pid);
}

void put(std::string& text, std::string_view what, std::string_view value) {
  text += fmt::format("{:<18} {}\n", what, value);
}

void put_words(std::string& text, const std::vector<std::string>& words) {
  size_t column = 0;
  for (const std::string& word : words) {
    const bool fits = column > 0 && column + 1 + word.size() <= text_width;
    if (!fits && column > 0) text += '\n';
    text += fits ? " " : "  ";
    text += word;
    column = word.size() + (fits ? column + 1 : 2);
  }
  if (!words.empty()) text += '\n';
}

template <class T>
std::string or_unknown(const std::optional<T>& value, std::string_view unit = "") {
  return value ? fmt::format("{}{}", *value, unit) : "cannot be asked";
}

void put_config(std::string& text, const Findings& found) {
  put(text, "configuration",
      found.config.empty() ? "cannot be read" : fmt::format("{} bytes", found.config.size()));
  if (is_blk(found)) {
    for (const Value& value : blk_values(found)) text += fmt::format("  {:<30}{}\n", value.name, value.value);
    return;
  }
  const std::span<const std::byte> bytes(found.config);
  for (size_t at = 0; at < bytes.size(); at += 32) {
    text += fmt::format("  {:4}  {}\n", at, hex(bytes.subspan(at, std::min<size_t>(32, bytes.size() - at))));
  }
}

}  // namespace

std::string probe_text(const Findings& found) {
  std::string text;
  put(text, "device", describe_type(found));
  put(text, "program", describe_program(found));
  put(text, "features", fmt::format("{:#x}", found.features));
  put_words(text, feature_names(found));
  put(text, "protocol features", found.protocol ? fmt::format("{:#x}", *found.protocol) : "none");
  put_words(text, protocol_names(found));
  put(text, "queues", or_unknown(found.queues));
  put(text, "memory slots", or_unknown(found.memory_slots));
  put(text, "largest ring", or_unknown(found.queue_size, " entries"));
  put_config(text, found);
  const std::vector<std::string> odd = oddities(found);
  put(text, "oddities", odd.empty() ? "none" : "");
  for (const std::string& each : odd) text += fmt::format("  - {}\n", each);
  return text;
}

std::string probe_json(const Findings& found) {
  const auto number_or_null = [](const auto& value) {
    return value ? ordered_json(*value) : ordered_json(nullptr);
  };
  ordered_json json;
  json["socket"] = found.socket;
  json["program"] = {{"name", found.program}, {"pid", found.pid}};
  json["device"] = found.types.empty() ? ordered_json(nullptr) : ordered_json(found.type()->name);
  json["possible_devices"] = type_names(found);
  json["features"] = {{"value", found.features}, {"names", feature_names(found)}};
  json["protocol_features"] = nullptr;
  if (found.protocol)
    json["protocol_features"] = {{"value", *found.protocol}, {"names", protocol_names(found)}};
  json["queues"] = number_or_null(found.queues);
  json["memory_slots"] = number_or_null(found.memory_slots);
  json["largest_ring"] = number_or_null(found.queue_size);
  ordered_json config = {{"bytes", found.config.size()}, {"hex", hex(found.config)}};
  if (is_blk(found)) {
    for (const Value& value : blk_values(found)) config["fields"][value.name] = value.value;
  }
  json["configuration"] = found.config.empty() ? ordered_json(nullptr) : config;
  json["oddities"] = oddities(found);
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + '\n';
}

}  // namespace ringway::tools
