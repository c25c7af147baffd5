// What the reports of all benches have in common. Any thread.
#pragma once

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ringway/tools/histogram.h"

namespace ringway::tools {

inline constexpr std::array shown_percentiles{1.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99};

// Nanoseconds in microseconds.
[[nodiscard]] std::string latency_words(const Histogram& latency);
[[nodiscard]] nlohmann::ordered_json latency_json(const Histogram& latency);
// "93.1 %", "unknown"
[[nodiscard]] std::string cores_words(const std::optional<double>& cores);
[[nodiscard]] nlohmann::ordered_json or_null(const std::optional<double>& value);

}  // namespace ringway::tools
