// The switches of this process, and how their ports and uplinks are written. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ringway/device/port/switch.h"
#include "ringway/device/port/uplink.h"
#include "ringway/engine/workers.h"
#include "ringway/tools/port_kinds.h"

namespace ringway::tools {

struct SwitchOptions {
  std::string name;
  uint64_t macs = 16384;  // addresses learned at most
  uint64_t ageing = 300;  // seconds
  struct Uplink {
    std::string port;      // "tap:name=tap0"
    std::string settings;  // "vlan=10,isolated=yes": as of a port of the switch
  };
  std::vector<Uplink> uplinks;
};

// Empty, or what is wrong.
std::string mistake_in(const SwitchOptions& options);

// What is wrong among switches that are each right: a name that two have, an uplink to one that nobody
// describes, and uplinks that connect them in a loop, where a frame for everybody would go round for ever.
struct SwitchMistake {
  size_t at = 0;  // of the switches
  std::string mistake;
};
std::optional<SwitchMistake> mistake_among(std::span<const SwitchOptions> switches);
// A port on a switch that none of these is, where any is described: empty, or what is wrong.
std::string undescribed_switch(std::string_view port, std::span<const SwitchOptions> switches);

// A switch with its uplinks. It is there, by its name, as long as this or a port of it is.
class ServedSwitch {
 public:
  // Live upgrade: what hand_over() has given in another process for the uplink at this place; no fd: nothing.
  using Inherited = std::function<Parsed<UniqueFd>(const std::string& place)>;
  // Uplinks that are inherited wait for go_on().
  static Parsed<std::unique_ptr<ServedSwitch>> open(const SwitchOptions& options, engine::Workers& workers,
                                                    const Inherited& inherited = {});

  // Live upgrade: what another process needs of each uplink, and where it is to be found there.
  struct HandedUplink {
    std::string place;
    UniqueFd backing;
  };
  [[nodiscard]] Parsed<std::vector<HandedUplink>> hand_over() const;
  // Until go_on() nothing comes in by an uplink; see port::Uplink. What was learned is learned again by the
  // next process.
  void stand_still();
  void let_out();
  void go_on();

  // A port of it that is no device's.
  struct Uplink {
    std::string place;  // where it is found by another process
    std::string name;   // as it is written: "sw0, tap:name=tap0"
    std::string kind;   // of the port
    std::unique_ptr<port::Uplink> uplink;
  };
  [[nodiscard]] std::span<const Uplink> uplinks() const { return uplinks_; }

 private:
  explicit ServedSwitch(std::shared_ptr<port::Switch> fabric) : switch_(std::move(fabric)) {}
  const std::shared_ptr<port::Switch> switch_;
  std::vector<Uplink> uplinks_;
};

// "switch:name=sw0,vlan=10": for the table of kinds. A switch that is not there yet is made.
extern const std::vector<const char*> switch_port_keys;
std::string mistake_in_switch_port(const PortText& text);
Parsed<std::unique_ptr<port::Port>> open_switch_port(const PortText& text, uint16_t pairs);

}  // namespace ringway::tools
