// Trial: one check's view of what is checked: sessions that it may open, and what is known of the device.
// Used on one thread; what was opened ends with it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ringway/check/rig.h"
#include "ringway/check/target.h"

namespace ringway::check {

class Trial {
 public:
  Trial(Target& target, const Kind& kind, const Patience& patience)
      : target_(target), kind_(kind), patience_(patience) {}

  [[nodiscard]] Target& target() const { return target_; }
  [[nodiscard]] const Kind& kind() const { return kind_; }
  [[nodiscard]] const Patience& patience() const { return patience_; }

  // A session of its own, at the request seam.
  Or<Rig*> rig();
  // One whose ring runs.
  Or<Rig*> running(const Rig::Wanted& wanted = {});
  // One of frames, and one that is greeted.
  Or<Wire*> connected();
  Or<Wire*> wire(uint64_t wanted_protocol = ~uint64_t{0});
  // Ends all sessions: some back-ends serve one at a time.
  void close() {
    rigs_.clear();
    wires_.clear();
  }
  // The rig of a device over the wire's connection: both may be used in turns.
  Or<Rig*> rig_over(Wire& wire);

  // What was on the wire last, if there is one.
  [[nodiscard]] std::string transcript() const;

 private:
  Target& target_;
  const Kind& kind_;
  const Patience& patience_;
  std::vector<std::unique_ptr<Wire>> wires_;
  std::vector<std::unique_ptr<Rig>> rigs_;
};

}  // namespace ringway::check
