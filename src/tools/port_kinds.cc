#include "ringway/tools/port_kinds.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "ringway/device/port/loop.h"
#include "ringway/device/port/null.h"
#include "ringway/device/port/tap.h"

namespace ringway::tools {
namespace {

Parsed<std::unique_ptr<port::Port>> opened(Result<std::unique_ptr<port::Port>> port) {
  if (!port) return std::unexpected(port.error().to_string());
  return *std::move(port);
}

Parsed<std::unique_ptr<port::Port>> open_null_port(const PortText& text, uint16_t) {
  const auto send = text.number("send", port::min_frame, port::max_frame, 0);
  if (!send) return std::unexpected(send.error());
  return port::open_null({.send = static_cast<uint32_t>(*send)});
}

Parsed<std::unique_ptr<port::Port>> open_loop_port(const PortText&, uint16_t) { return port::open_loop(); }

Parsed<std::unique_ptr<port::Port>> open_tap_port(const PortText& text, uint16_t pairs) {
  if (text.has("name") == text.has("fd")) return std::unexpected("exactly one of name and fd is needed");
  const auto fd = text.number("fd", 0, INT32_MAX, 0);
  if (!fd) return std::unexpected(fd.error());
  port::TapOptions options{.name = text.text("name"), .fd = {}, .pairs = pairs};
  if (text.has("fd")) options.fd = UniqueFd(static_cast<int>(*fd));
  return opened(port::open_tap(std::move(options)));
}

}  // namespace

std::span<const PortKind> port_kinds() {
  static const auto kinds = std::to_array<PortKind>({
      {"loop", {}, open_loop_port},
      {"null", {"send"}, open_null_port},
      {"tap", {"name", "fd"}, open_tap_port},
  });
  return kinds;
}

std::string PortText::text(std::string_view key) const {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

Parsed<uint64_t> PortText::number(std::string_view key, uint64_t least, uint64_t most,
                                  uint64_t otherwise) const {
  const auto found = settings.find(key);
  if (found == settings.end()) return otherwise;
  const std::string& text = found->second;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) {
    return std::unexpected(fmt::format("{}: must be a number from {} to {}", key, least, most));
  }
  return value;
}

Parsed<PortText> parse_port(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const auto kinds = port_kinds();
  const auto kind =
      std::ranges::find(kinds, name, [](const PortKind& one) { return std::string_view(one.name); });
  if (kind == kinds.end()) {
    std::vector<std::string_view> names;
    for (const PortKind& one : kinds) names.emplace_back(one.name);
    return std::unexpected(fmt::format("there is no port '{}'; there are {}", name, fmt::join(names, ", ")));
  }
  PortText port{.kind = &*kind, .settings = {}};
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  while (!rest.empty()) {
    const std::string_view setting = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(setting.size() + 1, rest.size()));
    const size_t equals = setting.find('=');
    const std::string_view key = setting.substr(0, equals);
    if (equals == std::string_view::npos || equals + 1 == setting.size())
      return std::unexpected(fmt::format("'{}' is not KEY=VALUE", setting));
    if (std::ranges::find(kind->keys, key) == kind->keys.end())
      return std::unexpected(fmt::format("{}: a {} port has no such key", key, name));
    if (!port.settings.emplace(key, setting.substr(equals + 1)).second)
      return std::unexpected(fmt::format("{}: is there twice", key));
  }
  return port;
}

Parsed<std::unique_ptr<port::Port>> open_port(std::string_view text, uint16_t pairs) {
  const auto port = parse_port(text);
  if (!port) return std::unexpected(port.error());
  return port->kind->open(*port, pairs);
}

}  // namespace ringway::tools
