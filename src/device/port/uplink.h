// Uplink: a port of a switch behind which there is another Port (a tap, say) instead of a device. Made and
// ended by any thread that is no worker's; each of its pairs of queues belongs to a worker.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "ringway/device/port/switch.h"

namespace ringway::port {

class Uplink {
 public:
  // `behind` has a pair of queues on each of the loops, as far as it tells pairs apart. The loops outlive the
  // uplink.
  static Result<std::unique_ptr<Uplink>> open(std::shared_ptr<Switch> fabric, std::unique_ptr<Port> behind,
                                              const StationOptions& options,
                                              std::span<loop::Loop* const> loops);
  ~Uplink();
  [[nodiscard]] std::vector<Counter> counters() const;

 private:
  class Line;  // NOLINT(cppcoreguidelines-virtual-class-destructor): it is final
  Uplink(std::shared_ptr<Switch> fabric, std::unique_ptr<Port> behind, Station& station);

  const std::shared_ptr<Switch> switch_;
  const std::unique_ptr<Port> behind_;
  Station& station_;
  std::vector<std::unique_ptr<Line>> lines_;  // one for each pair
};

}  // namespace ringway::port
