// Hostile inputs: what a front-end must not send and may send, each on a connection of its own. A back-end
// may refuse, close the connection or ignore it; what it may not is to end, to hang, or to stop serving
// others. Owned by one thread. The numbers are those of docs/robustness.md, part B.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ringway/check/runner.h"

namespace ringway::check {

struct HostileRow {
  std::string number;  // "H061"
  std::string input;   // in words and values
  Finding finding;     // what became of it
};

using TellHostile = std::function<void(const HostileRow&)>;

// A back-end that is gone is started again if the target can, else the rest is not testable.
std::vector<HostileRow> attack_back_end(Target& target, const Options& options, const TellHostile& tell = {});

}  // namespace ringway::check
