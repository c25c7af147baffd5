// What `ringway bench net` prints of its result. Any thread.
#pragma once

#include <string>

#include "ringway/tools/net_bench_run.h"

namespace ringway::tools {

[[nodiscard]] std::string net_bench_text(const NetBenchResult& result);
[[nodiscard]] std::string net_bench_json(const NetBenchResult& result);
// One line, without its end.
[[nodiscard]] std::string net_progress_line(const Progress& progress);

}  // namespace ringway::tools
