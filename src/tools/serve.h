// ringway serve: devices for front-ends, until SIGTERM or SIGINT. SIGHUP looks at the sizes of the files
// again, SIGUSR1 logs what devices have counted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ringway/tools/command.h"

namespace ringway::tools {

// vhost-user "Backend program conventions": with --print-capabilities among the words of `serve TYPE` it
// prints them, whatever else is there, and the value is the exit status.
std::optional<int> print_capabilities(const std::vector<std::string>& words);

}  // namespace ringway::tools
