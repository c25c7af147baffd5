// The giving side of a live upgrade: starts the new program, tells it all, stops, and sees it go on; or goes
// on itself as if nothing had been. Main thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringway/tools/served_device.h"
#include "ringway/tools/switches.h"
#include "ringway/user/listener.h"

namespace ringway::tools {

// What a process that serves can hand over.
struct Serving {
  std::span<const std::unique_ptr<ServedDevice>> devices;
  std::span<const std::unique_ptr<ServedSwitch>> switches;
  user::Listener& listener;
  std::vector<std::string> words;        // of its command line, after "serve"
  std::vector<std::string> environment;  // for the other process, besides its own: "NAME=value"
  std::string obstacle;                  // why nothing can be handed over; empty: it can
};

struct HandedOver {
  enum class Outcome : uint8_t {
    moved,   // the other process serves: end without touching anything
    stayed,  // we serve as before
    lost,    // the other process ended after it had taken over
  };
  Outcome outcome = Outcome::stayed;
  pid_t successor = 0;                // moved
  std::chrono::microseconds pause{};  // moved: from the moment when we took no more requests
  std::string sentence;               // for the user
};

struct UpgradeWish {
  std::string binary;
  std::chrono::seconds time_to_open{60};  // for the new program to open all disks; guests do not wait then
};

HandedOver hand_over(const Serving& serving, const UpgradeWish& wish);

}  // namespace ringway::tools
