#include "ringway/tools/switches.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>

namespace ringway::tools {
namespace {

constexpr uint64_t most_per_second = 1'000'000'000'000;

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<port::Switch>> switches;
};

// Devices and switches are described apart, and meet by name.
std::shared_ptr<port::Switch> switch_named(const std::string& name, const port::Switch::Options& options) {
  static Registry registry;
  const std::scoped_lock lock(registry.mutex);
  std::weak_ptr<port::Switch>& known = registry.switches[name];
  std::shared_ptr<port::Switch> there = known.lock();
  if (there == nullptr) known = there = port::Switch::make(options);
  return there;
}

Parsed<bool> yes(const PortText& text, std::string_view key) {
  const std::string word = text.text(key);
  if (word.empty() || word == "no") return false;
  if (word == "yes") return true;
  return std::unexpected(fmt::format("{}: must be yes or no", key));
}

// "10+20+100-199"
Parsed<std::bitset<4096>> parse_vlans(std::string_view text) {
  std::bitset<4096> vlans;
  for (const std::string_view part : split(text, '+')) {
    const size_t dash = part.find('-');
    const auto number = [](std::string_view digits) -> unsigned {
      unsigned value = 0;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      return error == std::errc{} && end == digits.data() + digits.size() ? value : 0;
    };
    const unsigned first = number(part.substr(0, dash));
    const unsigned last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (first < 1 || last > 4094 || first > last)
      return std::unexpected(
          fmt::format("trunk: '{}' is no list like 10+20-29 of VLANs from 1 to 4094", text));
    for (unsigned vlan = first; vlan <= last; ++vlan) vlans.set(vlan);
  }
  return vlans;
}

// A number of a table: where it goes, and what it may be.
struct Number {
  const char* key;
  uint64_t port::StationOptions::* member;
};
constexpr Number rates[] = {
    {"tx-pps", &port::StationOptions::tx_pps},       {"tx-bps", &port::StationOptions::tx_bps},
    {"rx-pps", &port::StationOptions::rx_pps},       {"rx-bps", &port::StationOptions::rx_bps},
    {"flood-pps", &port::StationOptions::flood_pps},
};

Parsed<port::StationOptions> station_options(const PortText& text) {
  port::StationOptions options;
  const auto vlan = text.number("vlan", 1, 4094, 0);
  const auto native = text.number("native", 0, 4094, 1);
  const auto isolated = yes(text, "isolated");
  const auto mirror = yes(text, "mirror");
  for (const auto* number : {&vlan, &native}) {
    if (!*number) return std::unexpected(number->error());
  }
  for (const auto* flag : {&isolated, &mirror}) {
    if (!*flag) return std::unexpected(flag->error());
  }
  if (*vlan != 0 && (text.has("trunk") || text.has("native")))
    return std::unexpected("vlan: goes with neither trunk nor native");
  if (*vlan != 0) options.vlan = static_cast<uint16_t>(*vlan);
  options.native = static_cast<uint16_t>(*native);
  options.isolated = *isolated;
  options.mirror = *mirror;
  if (text.has("trunk")) {
    const auto vlans = parse_vlans(text.text("trunk"));
    if (!vlans) return std::unexpected(vlans.error());
    options.trunk = *vlans;
  }
  if (text.has("mac")) {
    const auto mac = parse_mac(text.text("mac"));
    if (!mac) return std::unexpected(fmt::format("mac: {}", mac.error()));
    options.mac = port::peek_mac(mac->data());
  }
  for (const Number& rate : rates) {
    const auto value = text.number(rate.key, 1, most_per_second, 0);
    if (!value) return std::unexpected(value.error());
    options.*rate.member = *value;
  }
  return options;
}

// Of the switch that a port is on.
std::string switch_name(const PortText& text) {
  const std::string name = text.text("name");
  return name.empty() ? "switch" : name;
}

Parsed<port::StationOptions> uplink_settings(const SwitchOptions::Uplink& uplink) {
  const auto text = parse_port("switch:" + uplink.settings);
  if (!text) return std::unexpected(text.error());
  return station_options(*text);
}

Parsed<std::unique_ptr<port::Uplink>> open_uplink(std::shared_ptr<port::Switch> fabric,
                                                  const SwitchOptions::Uplink& uplink,
                                                  engine::Workers& workers, UniqueFd inherited) {
  const auto settings = uplink_settings(uplink);
  if (!settings) return std::unexpected(settings.error());
  std::vector<loop::Loop*> loops;
  for (size_t i = 0; i < workers.count(); ++i) loops.push_back(&workers.worker(i));
  const auto start = inherited ? port::Uplink::Start::by_go_on : port::Uplink::Start::at_once;
  std::optional<ParceledPort> parcel;
  if (inherited) parcel = TRY(unwrap_port(std::move(inherited)));
  const auto pairs = static_cast<uint16_t>(std::min<size_t>(loops.size(), 128));
  auto behind = TRY(open_port(uplink.port, pairs, std::move(parcel)));
  auto opened = port::Uplink::open(std::move(fabric), std::move(behind), *settings, loops, start);
  if (!opened) return std::unexpected(opened.error().to_string());
  return *std::move(opened);
}

std::optional<SwitchMistake> loop_of(std::span<const SwitchOptions> switches) {
  std::map<std::string, std::string> joined;  // a switch, and another that it is connected with
  const auto root = [&](std::string name) {
    for (auto next = joined.find(name); next != joined.end(); next = joined.find(name)) name = next->second;
    return name;
  };
  for (size_t i = 0; i < switches.size(); ++i) {
    for (const SwitchOptions::Uplink& uplink : switches[i].uplinks) {
      const auto port = parse_port(uplink.port);
      if (!port || kind_in(uplink.port) != "switch") continue;
      const std::string here = root(switches[i].name);
      const std::string there = root(switch_name(*port));
      if (here == there)
        return SwitchMistake{.at = i,
                             .mistake = fmt::format("uplink: {} connects switches in a loop", uplink.port)};
      joined[here] = there;
    }
  }
  return {};
}

}  // namespace

const std::vector<const char*> switch_port_keys = {"name",     "vlan",   "trunk",  "native",
                                                   "isolated", "mirror", "mac",    "tx-pps",
                                                   "tx-bps",   "rx-pps", "rx-bps", "flood-pps"};

std::string mistake_in(const SwitchOptions& options) {
  if (options.name.empty()) return "name is needed";
  if (options.macs < 8 || options.macs > 1048576) return "macs: must be 8 to 1048576";
  if (options.ageing < 1 || options.ageing > 1000000) return "ageing: must be 1 to 1000000";
  for (const SwitchOptions::Uplink& uplink : options.uplinks) {
    if (const auto port = parse_port(uplink.port); !port) return fmt::format("uplink: {}", port.error());
    if (const auto settings = uplink_settings(uplink); !settings)
      return fmt::format("uplink: {}", settings.error());
  }
  return {};
}

std::string undescribed_switch(std::string_view port, std::span<const SwitchOptions> switches) {
  const auto text = parse_port(port);
  if (switches.empty() || !text || kind_in(port) != "switch") return {};
  const std::string name = switch_name(*text);
  if (std::ranges::find(switches, name, &SwitchOptions::name) != switches.end()) return {};
  return fmt::format("there is no switch '{}' among those that are described", name);
}

std::optional<SwitchMistake> mistake_among(std::span<const SwitchOptions> switches) {
  for (size_t i = 0; i < switches.size(); ++i) {
    const std::string& name = switches[i].name;
    if (std::ranges::find(switches.first(i), name, &SwitchOptions::name) != switches.first(i).end())
      return SwitchMistake{.at = i, .mistake = fmt::format("name: there is another switch '{}'", name)};
    for (const SwitchOptions::Uplink& uplink : switches[i].uplinks) {
      if (const std::string wrong = undescribed_switch(uplink.port, switches); !wrong.empty())
        return SwitchMistake{.at = i, .mistake = fmt::format("uplink: {}: {}", uplink.port, wrong)};
    }
  }
  return loop_of(switches);
}

Parsed<std::unique_ptr<ServedSwitch>> ServedSwitch::open(const SwitchOptions& options,
                                                         engine::Workers& workers,
                                                         const Inherited& inherited) {
  std::unique_ptr<ServedSwitch> served(new ServedSwitch(switch_named(
      options.name, {.mac_limit = options.macs, .ageing_seconds = static_cast<uint32_t>(options.ageing)})));
  for (const SwitchOptions::Uplink& uplink : options.uplinks) {
    const std::string place = fmt::format("{}, uplink {}", options.name, served->uplinks_.size());
    UniqueFd backing;
    if (inherited) backing = TRY(inherited(place));
    auto opened = open_uplink(served->switch_, uplink, workers, std::move(backing));
    if (!opened) return std::unexpected(fmt::format("{}: {}", uplink.port, opened.error()));
    served->uplinks_.push_back({.place = place,
                                .name = fmt::format("{}, {}", options.name, uplink.port),
                                .kind = kind_in(uplink.port),
                                .uplink = *std::move(opened)});
  }
  return served;
}

Parsed<std::vector<ServedSwitch::HandedUplink>> ServedSwitch::hand_over() const {
  std::vector<HandedUplink> handed;
  for (const Uplink& one : uplinks_) {
    auto port = one.uplink->hand_over();
    if (!port) return std::unexpected(fmt::format("{}: {}", one.place, port.error().to_string()));
    auto backing = wrap_port({.kind = one.kind, .mac = {}, .port = *std::move(port)});
    if (!backing) return std::unexpected(fmt::format("{}: {}", one.place, backing.error().to_string()));
    handed.push_back({.place = one.place, .backing = *std::move(backing)});
  }
  return handed;
}

void ServedSwitch::stand_still() {
  for (const Uplink& one : uplinks_) one.uplink->stand_still();
}

void ServedSwitch::let_out() {
  for (const Uplink& one : uplinks_) one.uplink->let_out();
}

void ServedSwitch::go_on() {
  for (const Uplink& one : uplinks_) one.uplink->go_on();
}

std::string mistake_in_switch_port(const PortText& text) {
  const auto options = station_options(text);
  return options ? std::string() : options.error();
}

Parsed<std::unique_ptr<port::Port>> open_switch_port(const PortText& text, uint16_t) {
  const auto options = station_options(text);
  if (!options) return std::unexpected(options.error());
  auto port = switch_named(switch_name(text), {})->plug(*options);
  if (!port) return std::unexpected(port.error().to_string());
  return *std::move(port);
}

}  // namespace ringway::tools
