// The kinds of devices that `ringway serve` has, in one table. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/base/unique_fd.h"
#include "ringway/device/port/port.h"
#include "ringway/engine/model.h"
#include "ringway/tools/device_options.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {

// A device that can be served.
struct OpenedDevice {
  std::unique_ptr<engine::Model> model;
  std::function<Result<>()> refresh;  // looks at what it serves again (SIGHUP); may be none
  // Live upgrade: what another process needs to open it, DeviceOptions::inherited there; may be nothing.
  // None: devices of this kind cannot move to another process.
  std::function<Result<UniqueFd>()> hand_over;
  std::function<std::vector<port::Counter>()> counters = {};  // any thread; may be none
};

struct DeviceKind {
  const char* name;  // of the subcommand and in a configuration file
  const char* help;
  std::span<const Option<DeviceOptions>> (*options)();  // its own, besides those of all
  // Empty, or what is wrong with how options go together.
  std::string (*mistake)(const DeviceOptions&);
  Parsed<OpenedDevice> (*open)(const DeviceOptions&);
  // vhost-user "Backend program conventions": --print-capabilities.
  const char* type;
  std::vector<std::string> features;
};

// Each is in a file of its own, named after it.
DeviceKind blk_kind();
DeviceKind net_kind();

std::span<const DeviceKind> device_kinds();
// Null if there is none of this name.
const DeviceKind* find_device_kind(std::string_view name);

}  // namespace ringway::tools
