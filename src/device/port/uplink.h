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
  enum class Start : uint8_t { at_once, by_go_on };
  // `behind` has a pair of queues on each of the loops, as far as it tells pairs apart. The loops outlive the
  // uplink.
  static Result<std::unique_ptr<Uplink>> open(std::shared_ptr<Switch> fabric, std::unique_ptr<Port> behind,
                                              const StationOptions& options,
                                              std::span<loop::Loop* const> loops,
                                              Start start = Start::at_once);
  ~Uplink();
  // Live upgrade: until go_on() nothing is taken from the port behind, so that another process may. One that
  // is to start by go_on() lets frames out from let_out() on; before that they would find nobody.
  void stand_still();
  void let_out();
  void go_on();
  [[nodiscard]] Result<HandedPort> hand_over() const { return behind_->hand_over(); }
  [[nodiscard]] std::vector<Counter> counters() const;

 private:
  class Line;  // NOLINT(cppcoreguidelines-virtual-class-destructor): it is final
  Uplink(std::shared_ptr<Switch> fabric, std::unique_ptr<Port> behind, Station& station,
         std::vector<loop::Loop*> loops);
  Result<> begin(Start start);

  const std::shared_ptr<Switch> switch_;
  const std::unique_ptr<Port> behind_;
  Station& station_;
  const std::vector<loop::Loop*> loops_;      // one for each pair
  std::vector<std::unique_ptr<Line>> lines_;  // likewise, from begin() on
};

}  // namespace ringway::port
