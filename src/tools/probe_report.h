// What `ringway probe` prints of its findings. Any thread.
#pragma once

#include <string>

#include "ringway/tools/findings.h"

namespace ringway::tools {

[[nodiscard]] std::string probe_text(const Findings& findings);
[[nodiscard]] std::string probe_json(const Findings& findings);

}  // namespace ringway::tools
