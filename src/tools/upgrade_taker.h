// The taking side of a live upgrade: what `ringway serve --take-over=FD` does before it serves. Main thread.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringway/tools/served_device.h"
#include "ringway/tools/switches.h"
#include "ringway/tools/upgrade_channel.h"
#include "ringway/user/listener.h"

namespace ringway::tools {

class UpgradeTaker {
 public:
  // Hears which devices there are, and takes what lies behind them.
  static Parsed<UpgradeTaker> meet(UniqueFd socket);

  // What the other process gives for the device, or the uplink of a switch, at this place.
  struct Given {
    std::string type;
    UniqueFd backing;  // may be none
    bool is_taken = false;
  };
  [[nodiscard]] bool has(const std::string& place) const { return given_.contains(place); }
  Parsed<UniqueFd> take_backing(const std::string& place, const std::string& type);

  // What is to begin when this process serves, and stands still before.
  struct Successors {
    std::span<const std::unique_ptr<ServedDevice>> devices;  // that were given, opened
    std::span<const std::unique_ptr<ServedSwitch>> switches;
  };
  // All that is fallible, until this process serves. After an error the process must end by std::_Exit, for
  // what it holds belongs to the other one.
  Parsed<void> take_over(const Successors& successors, user::Listener& listener);
  // Tells why not. The process must end likewise.
  void refuse(const std::string& why);

 private:
  // A session that is about to go on here.
  struct Coming {
    std::string place;
    std::shared_ptr<user::Inheritance> inheritance;
    bool started = false;
  };
  explicit UpgradeTaker(UpgradeChannel channel) : channel_(std::move(channel)) {}
  Parsed<void> hear_devices();
  Parsed<void> hear_places(std::span<const std::unique_ptr<ServedDevice>> devices, user::Listener& listener);
  Parsed<void> hear_place(Letter letter, std::span<const std::unique_ptr<ServedDevice>> devices,
                          user::Listener& listener);
  Parsed<void> hear_starts(std::span<const std::unique_ptr<ServedDevice>> devices);
  Parsed<void> hear_start(Letter letter, std::span<const std::unique_ptr<ServedDevice>> devices);

  UpgradeChannel channel_;
  std::map<std::string, Given> given_;
  std::vector<Coming> coming_;
};

}  // namespace ringway::tools
