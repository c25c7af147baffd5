// What `ringway bench` prints of its result. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "ringway/tools/bench_run.h"

namespace ringway::tools {

[[nodiscard]] std::string_view pattern_name(Pattern pattern);
[[nodiscard]] std::string bench_text(const BenchResult& result);
[[nodiscard]] std::string bench_json(const BenchResult& result);
// One line, without its end.
[[nodiscard]] std::string progress_line(const Progress& progress, uint32_t block_bytes);

}  // namespace ringway::tools
