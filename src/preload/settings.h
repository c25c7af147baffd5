// What the environment variable RINGWAY_VHOST says: "name=value,name=value". Any thread.
#pragma once

#include <string>
#include <string_view>

#include "ringway/base/log.h"
#include "ringway/base/result.h"
#include "ringway/loop/loop.h"

namespace ringway::preload {

struct Settings {
  std::string net = "tap";  // the device behind /dev/vhost-net; "none": the host's own, if it has one
  unsigned workers = 1;
  loop::Polling polling = loop::Polling::adaptive;
  log::Level level = log::Level::warning;

  // Refuses unknown names and values.
  static Result<Settings> parse(std::string_view text);
};

}  // namespace ringway::preload
