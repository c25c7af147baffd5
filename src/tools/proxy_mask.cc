#include "ringway/tools/proxy_mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using vhost::bit;

// Calls `parse` for each word of a list and collects the bits.
Parsed<uint64_t> parse_list(std::string_view list,
                            const std::function<Parsed<unsigned>(const std::string&)>& parse) {
  uint64_t bits = 0;
  while (true) {
    const size_t comma = list.find(',');
    std::string word(list.substr(0, comma));
    std::ranges::transform(word, word.begin(),
                           [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (word.empty()) return std::unexpected("a name is missing in the list");
    auto number = parse(word);
    if (!number) return std::unexpected(std::move(number).error());
    bits |= bit(*number);
    if (comma == std::string_view::npos) return bits;
    list.remove_prefix(comma + 1);
  }
}

std::optional<unsigned> parse_number(std::string_view word) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc{} || end != word.data() + word.size() || number > 63) return std::nullopt;
  return number;
}

// "VIRTIO_NET_F_CSUM" -> "CSUM"
std::string_view without_prefix(std::string_view word) {
  const size_t prefix = word.find("_F_");
  return prefix != std::string_view::npos && word.starts_with("V") ? word.substr(prefix + 3) : word;
}

std::optional<unsigned> find(std::span<const BitName> names, std::string_view word) {
  const auto found = std::ranges::find(names, word, &BitName::name);
  if (found == names.end()) return std::nullopt;
  return found->bit;
}

Parsed<unsigned> feature_of_some_device(std::string_view word) {
  std::vector<unsigned> bits;
  std::string devices;
  for (const DeviceType& type : device_types()) {
    const auto number = find(type.features, word);
    if (!number) continue;
    devices += fmt::format("{}{}", devices.empty() ? "" : ", ", type.name);
    if (std::ranges::find(bits, *number) == bits.end()) bits.push_back(*number);
  }
  if (bits.size() == 1) return bits.front();
  if (bits.empty()) return std::unexpected(fmt::format("there is no feature '{}'", word));
  return std::unexpected(fmt::format("'{}' is a feature of {}: say --type", word, devices));
}

// Device features by what they need one of. VIRTIO 5.1.3.1 for net; other devices have no such rules.
struct Requirement {
  std::string_view feature;
  std::array<std::string_view, 2> one_of;
};
constexpr auto net_requirements = std::to_array<Requirement>({
    {"GUEST_TSO4", {"GUEST_CSUM"}},
    {"GUEST_TSO6", {"GUEST_CSUM"}},
    {"GUEST_ECN", {"GUEST_TSO4", "GUEST_TSO6"}},
    {"GUEST_UFO", {"GUEST_CSUM"}},
    {"GUEST_USO4", {"GUEST_CSUM"}},
    {"GUEST_USO6", {"GUEST_CSUM"}},
    {"HOST_TSO4", {"CSUM"}},
    {"HOST_TSO6", {"CSUM"}},
    {"HOST_ECN", {"HOST_TSO4", "HOST_TSO6"}},
    {"HOST_UFO", {"CSUM"}},
    {"HOST_USO", {"CSUM"}},
    {"CTRL_RX", {"CTRL_VQ"}},
    {"CTRL_VLAN", {"CTRL_VQ"}},
    {"GUEST_ANNOUNCE", {"CTRL_VQ"}},
    {"MQ", {"CTRL_VQ"}},
    {"CTRL_MAC_ADDR", {"CTRL_VQ"}},
    {"NOTF_COAL", {"CTRL_VQ"}},
    {"RSC_EXT", {"HOST_TSO4", "HOST_TSO6"}},
    {"RSS", {"CTRL_VQ"}},
    {"HASH_REPORT", {"CTRL_VQ"}},
    {"VQ_NOTF_COAL", {"CTRL_VQ"}},
    {"CTRL_GUEST_OFFLOADS", {"CTRL_VQ"}},
    {"CTRL_RX_EXTRA", {"CTRL_VQ"}},
});

bool is_taken(uint64_t taken, const DeviceType& type, std::string_view name) {
  const auto number = find(type.features, name);
  return name.empty() || (number && (taken & bit(*number)) != 0);
}

}  // namespace

Parsed<uint64_t> parse_features(std::string_view list, const DeviceType* type) {
  return parse_list(list, [type](const std::string& word) -> Parsed<unsigned> {
    if (const auto number = parse_number(word)) return *number;
    const std::string_view name = without_prefix(word);
    if (const auto number = find(common_features(), name)) return *number;
    if (type == nullptr) return feature_of_some_device(name);
    if (const auto number = find(type->features, name)) return *number;
    return std::unexpected(fmt::format("a {} device has no feature '{}'", type->name, name));
  });
}

Parsed<uint64_t> parse_protocol_features(std::string_view list) {
  return parse_list(list, [](const std::string& word) -> Parsed<unsigned> {
    if (const auto number = parse_number(word)) return *number;
    for (unsigned number = 0; number < vhost::protocol_feature_count; ++number) {
      if (vhost::protocol_feature_name(number) == without_prefix(word)) return number;
    }
    return std::unexpected(fmt::format("there is no protocol feature '{}'", word));
  });
}

Parsed<uint64_t> parse_bits(std::string_view text) {
  std::string_view digits = text;
  if (digits.starts_with("0x") || digits.starts_with("0X")) digits.remove_prefix(2);
  uint64_t bits = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits, 16);
  if (error != std::errc{} || end != digits.data() + digits.size())
    return std::unexpected(fmt::format("'{}' is not a hexadecimal number of at most 64 bits", text));
  return bits;
}

uint64_t all_features_but(uint64_t kept) {
  return ~kept & ~(bit(VHOST_F_LOG_ALL) | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES));
}

uint64_t with_dependent_features(uint64_t taken, const DeviceType* type) {
  if (type == nullptr || type->name != "net") return taken;
  while (true) {
    const uint64_t before = taken;
    for (const Requirement& requirement : net_requirements) {
      const bool none_left = std::ranges::all_of(
          requirement.one_of, [&](std::string_view name) { return is_taken(taken, *type, name); });
      const auto number = find(type->features, requirement.feature);
      if (none_left && number) taken |= bit(*number);
    }
    if (taken == before) return taken;
  }
}

}  // namespace ringway::tools
