// The configuration file of `ringway serve --config`: TOML, process options at the top, one [[device]] table
// each, and one [[switch]] table for each switch.
#pragma once

#include <string>
#include <vector>

#include "ringway/engine/workers.h"
#include "ringway/tools/device_options.h"
#include "ringway/tools/parse.h"
#include "ringway/tools/switches.h"

namespace ringway::tools {

struct ServeConfig {
  ProcessOptions process;
  std::vector<SwitchOptions> switches;
  std::vector<DeviceOptions> devices;
};

// A mistake is told with file, line and key.
Parsed<ServeConfig> read_serve_config(const std::string& path);

// What no table can say of a single option: how options go together. `where` names the device to the user.
Parsed<DeviceOptions> checked(DeviceOptions options, const std::string& where);

// What the workers are to be like.
Parsed<engine::Workers::Options> worker_options(const ProcessOptions& process);

}  // namespace ringway::tools
