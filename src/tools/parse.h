// Parsing of what users write: sizes, CPU lists. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace ringway::tools {

template <class T>
using Parsed = std::expected<T, std::string>;  // the error is a sentence for the user

// "4096", "512K", "1G", "2T": powers of 1024.
Parsed<uint64_t> parse_size(std::string_view text);
// "0,2-3" is 0, 2, 3. Empty text is an empty list.
Parsed<std::vector<int>> parse_cpu_list(std::string_view text);
// "a,b,,": what is between the separators, empty pieces too. Empty text has none.
std::vector<std::string_view> split(std::string_view text, char separator);
// "52:54:00:12:34:56": an address of one station, neither of a group nor of nobody.
Parsed<std::array<std::byte, 6>> parse_mac(std::string_view text);

}  // namespace ringway::tools
