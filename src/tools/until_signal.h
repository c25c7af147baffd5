// Until a signal ends it: what programs that serve do while their threads work. Main thread.
#pragma once

#include <functional>

#include "ringway/base/unique_fd.h"

namespace ringway::tools {

// SIGTERM, SIGINT and SIGHUP, to be read. They are blocked: call it before the first thread starts.
UniqueFd take_signals();
// Waits for SIGTERM or SIGINT; `on_hangup` is called at each SIGHUP.
void wait_for_end(const UniqueFd& signals, const std::function<void()>& on_hangup);

}  // namespace ringway::tools
