// A tap of this machine: frames go to its network stack and come from there, with checksums and segmentation
// left to do where both sides can. Thread rule: as Port.
#pragma once

#include <memory>
#include <string>

#include "ringway/base/unique_fd.h"
#include "ringway/device/port/port.h"

namespace ringway::port {

struct TapOptions {
  std::string name;    // of the interface, which is created if it is not there; or
  UniqueFd fd;         // one that is open already
  uint16_t pairs = 1;  // of queues that the device has; a tap with a single queue serves them too
  // Of a tap that somebody else has set up and goes on setting up, or another file that VHOST_NET_SET_BACKEND
  // takes: offloads are told to nobody, and every frame is taken and given as it is, behind a header of
  // whatever length the file has.
  bool as_it_is = false;
};

Result<std::unique_ptr<Port>> open_tap(TapOptions options);
// Goes on with the tap of this name (empty: whatever its name is) that Port::hand_over() has given in another
// process.
Result<std::unique_ptr<Port>> resume_tap(const std::string& name, HandedPort handed);

}  // namespace ringway::port
