#include "ringway/tools/serve_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>

#include "ringway/tools/device_kinds.h"

namespace ringway::tools {
namespace {

// A file that could not be read has no lines.
std::string at(const std::string& path, const toml::source_region& source, std::string_view what) {
  if (source.begin.line == 0) return fmt::format("{}: {}", path, what);
  return fmt::format("{}:{}: {}", path, source.begin.line, what);
}

// Where a mistake is that begins with the name of its key, "queues: must be 1 to 256"; else where the table
// begins.
toml::source_region place_of_mistake(const toml::table& table, std::string_view mistake) {
  const auto key = table.find(mistake.substr(0, mistake.find(':')));
  return key == table.end() ? table.source() : key->first.source();
}

std::string no_such_device(const std::string& name) {
  std::vector<std::string_view> names;
  for (const DeviceKind& kind : device_kinds()) names.emplace_back(kind.name);
  return fmt::format("type: there is no device '{}'; there are {}", name, fmt::join(names, ", "));
}

struct Assign {
  const toml::node& node;
  bool is_size;

  std::string operator()(std::string& to) const { return take(to, "a string"); }
  std::string operator()(bool& to) const { return take(to, "true or false"); }
  std::string operator()(int64_t& to) const { return take(to, "a number"); }
  std::string operator()(uint64_t& to) const {
    if (is_size) {
      if (const auto text = node.value_exact<std::string>()) return take_size(*text, to);
    }
    const auto number = node.value_exact<int64_t>();
    if (!number || *number < 0)
      return is_size ? "must be a size like 4096 or \"1G\"" : "must be a number, 0 or more";
    to = static_cast<uint64_t>(*number);
    return {};
  }

 private:
  template <class T>
  std::string take(T& to, std::string_view kind) const {
    const auto value = node.value_exact<T>();
    if (!value) return fmt::format("must be {}", kind);
    to = *value;
    return {};
  }
  static std::string take_size(const std::string& text, uint64_t& to) {
    const auto size = parse_size(text);
    if (!size) return size.error();
    to = *size;
    return {};
  }
};

// Empty, or what is wrong.
template <class Options>
std::string assign(Options& options, std::span<const Option<Options>> table, std::string_view key,
                   const toml::node& node) {
  const auto option =
      std::ranges::find(table, key, [](const auto& entry) { return std::string_view(entry.name); });
  if (option == table.end()) return "unknown key";
  return std::visit([&](auto member) { return Assign{node, option->is_size}(options.*member); },
                    option->member);
}

std::string assign(DeviceOptions& options, const DeviceKind& kind, std::string_view key,
                   const toml::node& node) {
  for (const auto& table : {common_option_table(), kind.options()}) {
    const auto has_key = [&](const auto& option) { return std::string_view(option.name) == key; };
    if (std::ranges::any_of(table, has_key)) return assign(options, table, key, node);
  }
  return "unknown key";
}

// How options go together. Empty, or what is wrong.
std::string mistake_in(const DeviceOptions& options) {
  const DeviceKind* kind = find_device_kind(options.type);
  if (kind == nullptr) return no_such_device(options.type);
  const int ends = int{!options.socket_path.empty()} + int{!options.connect.empty()} + int{options.fd >= 0};
  if (ends != 1) return "exactly one of socket-path, fd and connect is needed";
  if (options.fd > INT32_MAX) return "fd: is not a file descriptor";
  return kind->mistake(options);
}

Parsed<DeviceOptions> read_device(const std::string& path, const toml::node& node) {
  const toml::table* table = node.as_table();
  if (table == nullptr)
    return std::unexpected(at(path, node.source(), "device: must be a table, [[device]]"));
  DeviceOptions device;
  const DeviceKind* kind = find_device_kind(device.type);
  if (const toml::node* type = table->get("type")) {
    const std::string mistake = Assign{*type, false}(device.type);
    if (!mistake.empty()) return std::unexpected(at(path, type->source(), "type: " + mistake));
    kind = find_device_kind(device.type);
    if (kind == nullptr) return std::unexpected(at(path, type->source(), no_such_device(device.type)));
  }
  for (const auto& [key, value] : *table) {
    const std::string_view name = key.str();
    std::string mistake;
    if (name != "type") mistake = assign(device, *kind, name, value);
    if (!mistake.empty())
      return std::unexpected(at(path, key.source(), fmt::format("{}: {}", name, mistake)));
  }
  if (const std::string wrong = mistake_in(device); !wrong.empty())
    return std::unexpected(at(path, place_of_mistake(*table, wrong), wrong));
  return device;
}

Parsed<SwitchOptions::Uplink> read_uplink(const std::string& path, const toml::node& node) {
  static constexpr auto table = std::to_array<Option<SwitchOptions::Uplink>>({
      {"port", "", &SwitchOptions::Uplink::port},
      {"settings", "", &SwitchOptions::Uplink::settings},
  });
  const toml::table* keys = node.as_table();
  if (keys == nullptr) return std::unexpected(at(path, node.source(), "uplink: must be a table"));
  SwitchOptions::Uplink uplink;
  for (const auto& [key, value] : *keys) {
    const std::string mistake = assign<SwitchOptions::Uplink>(uplink, table, key.str(), value);
    if (!mistake.empty())
      return std::unexpected(at(path, key.source(), fmt::format("{}: {}", key.str(), mistake)));
  }
  return uplink;
}

Parsed<SwitchOptions> read_switch(const std::string& path, const toml::node& node) {
  static constexpr auto table = std::to_array<Option<SwitchOptions>>({
      {"name", "", &SwitchOptions::name},
      {"macs", "", &SwitchOptions::macs},
      {"ageing", "", &SwitchOptions::ageing},
  });
  const toml::table* keys = node.as_table();
  if (keys == nullptr) return std::unexpected(at(path, node.source(), "switch: must be a table, [[switch]]"));
  SwitchOptions options;
  for (const auto& [key, value] : *keys) {
    if (key.str() == "uplink" && value.is_array()) {
      for (const toml::node& one : *value.as_array()) {
        auto uplink = read_uplink(path, one);
        if (!uplink) return std::unexpected(uplink.error());
        options.uplinks.push_back(*std::move(uplink));
      }
      continue;
    }
    const std::string mistake = assign<SwitchOptions>(options, table, key.str(), value);
    if (!mistake.empty())
      return std::unexpected(at(path, key.source(), fmt::format("{}: {}", key.str(), mistake)));
  }
  if (const std::string wrong = mistake_in(options); !wrong.empty())
    return std::unexpected(at(path, place_of_mistake(*keys, wrong), "switch: " + wrong));
  return options;
}

// An array of tables: [[NAME]]. Empty, or what is wrong.
template <class Item>
std::string read_all(const std::string& path, std::string_view name, const toml::node& node,
                     Parsed<Item> (*read)(const std::string&, const toml::node&), std::vector<Item>& items) {
  const toml::array* tables = node.as_array();
  if (tables == nullptr)
    return at(path, node.source(), fmt::format("{0}: must be an array of tables, [[{0}]]", name));
  for (const toml::node& table : *tables) {
    auto item = read(path, table);
    if (!item) return item.error();
    items.push_back(*std::move(item));
  }
  return {};
}

// Two devices at one place. Empty, or what is wrong.
std::string doubled(const std::string& path, const toml::array& tables,
                    std::span<const DeviceOptions> devices) {
  for (size_t i = 0; i < devices.size(); ++i) {
    const auto before = devices.first(i);
    const auto same = std::ranges::find(before, place_of(devices[i]), place_of);
    if (same == before.end()) continue;
    const auto line = tables[static_cast<size_t>(same - before.begin())].source().begin.line;
    const char* const key = !devices[i].socket_path.empty() ? "socket-path"
                            : devices[i].connect.empty()    ? "fd"
                                                            : "connect";
    return at(path, place_of_mistake(*tables[i].as_table(), key),
              fmt::format("{}: is that of the device in line {} too", key, line));
  }
  return {};
}

// What goes for the whole file. Empty, or what is wrong.
std::string mistake_in(const std::string& path, const toml::table& root, const ServeConfig& config) {
  if (const auto workers = worker_options(config.process); !workers)
    return at(path, place_of_mistake(root, workers.error()), workers.error());
  if (config.devices.empty()) return fmt::format("{}: there is no [[device]]", path);
  if (const auto wrong = mistake_among(config.switches)) {
    const toml::table& table = *root["switch"].as_array()->get_as<toml::table>(wrong->at);
    return at(path, place_of_mistake(table, wrong->mistake), "switch: " + wrong->mistake);
  }
  const toml::array& devices = *root["device"].as_array();
  for (size_t i = 0; i < config.devices.size(); ++i) {
    const std::string wrong = undescribed_switch(config.devices[i].port, config.switches);
    if (!wrong.empty())
      return at(path, place_of_mistake(*devices[i].as_table(), "port"), fmt::format("port: {}", wrong));
  }
  return doubled(path, devices, config.devices);
}

}  // namespace

Parsed<DeviceOptions> checked(DeviceOptions options, const std::string& where) {
  if (const std::string wrong = mistake_in(options); !wrong.empty())
    return std::unexpected(fmt::format("{}: {}", where, wrong));
  return options;
}

Parsed<engine::Workers::Options> worker_options(const ProcessOptions& process) {
  engine::Workers::Options options{.count = static_cast<unsigned>(process.workers),
                                   .use_io_uring = !process.no_io_uring};
  if (process.workers < 1 || process.workers > 1024) return std::unexpected("workers: must be 1 to 1024");
  auto cpus = parse_cpu_list(process.cpus);
  if (!cpus) return std::unexpected(fmt::format("cpus: {}", cpus.error()));
  options.cpus = *std::move(cpus);
  if (process.poll == "adaptive") {
    options.polling = loop::Polling::adaptive;
  } else if (process.poll == "always") {
    options.polling = loop::Polling::always;
  } else if (process.poll == "never") {
    options.polling = loop::Polling::never;
  } else {
    return std::unexpected(fmt::format("poll: '{}' is not adaptive, always or never", process.poll));
  }
  return options;
}

Parsed<ServeConfig> read_serve_config(const std::string& path) {
  toml::table root;
  try {
    root = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return std::unexpected(at(path, error.source(), error.description()));
  }
  ServeConfig config;
  for (const auto& [key, value] : root) {
    const std::string_view name = key.str();
    std::string mistake;
    if (name == "device") {
      mistake = read_all(path, name, value, read_device, config.devices);
    } else if (name == "switch") {
      mistake = read_all(path, name, value, read_switch, config.switches);
    } else if (const std::string wrong = assign(config.process, process_option_table(), name, value);
               !wrong.empty()) {
      mistake = at(path, key.source(), fmt::format("{}: {}", name, wrong));
    }
    if (!mistake.empty()) return std::unexpected(mistake);
  }
  if (const std::string wrong = mistake_in(path, root, config); !wrong.empty()) return std::unexpected(wrong);
  return config;
}

}  // namespace ringway::tools
