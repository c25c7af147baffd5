// A traced message as people and programs read it. Any thread. docs/trace.md.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ringway/tools/device_names.h"
#include "ringway/tools/trace_judge.h"
#include "ringway/tools/trace_message.h"

namespace ringway::tools {

// Lines with their line ends. `type`: for the names of features; may be null.
[[nodiscard]] std::string message_text(const SeenMessage& message, const DeviceType* type);
[[nodiscard]] std::string finding_text(const Finding& finding);

[[nodiscard]] nlohmann::ordered_json message_json(const SeenMessage& message, const DeviceType* type);
[[nodiscard]] nlohmann::ordered_json finding_json(uint32_t session, const Finding& finding);
// One line. What is no UTF-8 in names of files is replaced.
[[nodiscard]] std::string json_line(const nlohmann::ordered_json& value);

// "12:34:56.789012", local time.
[[nodiscard]] std::string clock_text(std::chrono::system_clock::time_point time);

}  // namespace ringway::tools
