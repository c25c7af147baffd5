#include "ringway/tools/parse.h"

#include <fmt/format.h>

#include <charconv>

namespace ringway::tools {
namespace {

// The number that `text` starts with, which is cut off it.
template <class T>
bool take_number(std::string_view& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

}  // namespace

Parsed<uint64_t> parse_size(std::string_view text) {
  static constexpr std::string_view units = "KMGT";
  std::string_view rest = text;
  uint64_t value = 0;
  if (!take_number(rest, value) || rest.size() > 1)
    return std::unexpected(fmt::format("'{}' is not a size like 4096, 512K or 1G", text));
  if (rest.empty()) return value;
  const size_t unit = units.find(static_cast<char>(std::toupper(static_cast<unsigned char>(rest[0]))));
  if (unit == std::string_view::npos)
    return std::unexpected(fmt::format("'{}' has an unknown unit; K, M, G and T are known", text));
  const unsigned shift = 10 * (static_cast<unsigned>(unit) + 1);
  if (value > UINT64_MAX >> shift) return std::unexpected(fmt::format("'{}' is too large", text));
  return value << shift;
}

Parsed<std::vector<int>> parse_cpu_list(std::string_view text) {
  static constexpr int max_cpu = 4095;
  const auto mistake = std::unexpected(fmt::format("'{}' is not a list of CPUs like 0,2-3", text));
  std::vector<int> cpus;
  std::string_view rest = text;
  while (!rest.empty()) {
    int first = 0;
    if (!take_number(rest, first)) return mistake;
    int last = first;
    if (rest.starts_with('-')) {
      rest.remove_prefix(1);
      if (!take_number(rest, last)) return mistake;
    }
    if (first < 0 || last < first || last > max_cpu) return mistake;
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (rest.empty()) break;
    if (!rest.starts_with(',') || rest.size() == 1) return mistake;
    rest.remove_prefix(1);
  }
  return cpus;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  if (text.empty()) return pieces;
  for (size_t end = text.find(separator); end != std::string_view::npos; end = text.find(separator)) {
    pieces.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  pieces.push_back(text);
  return pieces;
}

Parsed<std::array<std::byte, 6>> parse_mac(std::string_view text) {
  const auto mistake = std::unexpected(fmt::format("'{}' is not an address like 52:54:00:12:34:56", text));
  std::array<std::byte, 6> mac{};
  if (text.size() != 17) return mistake;
  for (size_t i = 0; i < mac.size(); ++i) {
    const char* const digits = text.data() + 3 * i;
    uint8_t value = 0;
    const auto [end, error] = std::from_chars(digits, digits + 2, value, 16);
    if (error != std::errc{} || end != digits + 2 || (i < 5 && *end != ':')) return mistake;
    mac[i] = std::byte{value};
  }
  if ((mac[0] & std::byte{1}) != std::byte{0})
    return std::unexpected(fmt::format("'{}' is the address of a group", text));
  if (mac == std::array<std::byte, 6>{})
    return std::unexpected(fmt::format("'{}' is the address of nobody", text));
  return mac;
}

}  // namespace ringway::tools
