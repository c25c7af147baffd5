#include "ringway/tools/serve.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "ringway/base/log.h"
#include "ringway/tools/command_options.h"
#include "ringway/tools/device_kinds.h"
#include "ringway/tools/file_limit.h"
#include "ringway/tools/serve_config.h"
#include "ringway/tools/served_device.h"
#include "ringway/tools/service.h"
#include "ringway/tools/supervisor.h"
#include "ringway/tools/termination.h"
#include "ringway/tools/upgrade_giver.h"
#include "ringway/tools/upgrade_request.h"
#include "ringway/tools/upgrade_taker.h"
#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

constexpr const char* take_over_option = "--take-over";

struct Arguments {
  std::string config;
  int take_over = -1;
  std::vector<std::string> words;  // after "serve"
  ProcessOptions process;
  DeviceOptions device;
  // serve switch
  std::vector<std::string> sockets;
  std::vector<std::string> uplinks;
  SwitchOptions fabric{.name = "switch"};
};

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway serve: {}\n", sentence);
  return 1;
}

void refresh(std::span<const std::unique_ptr<ServedDevice>> devices) {
  for (const auto& device : devices) {
    if (auto looked = device->refresh(); !looked) log::warning("{}", looked.error().to_string());
  }
}

std::string json_of(std::span<const port::Counter> counters) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const port::Counter& one : counters) json[one.name] = one.value;
  return json.dump();
}

// A line for each device and each uplink of a switch that counts.
void report(std::span<const std::unique_ptr<ServedDevice>> devices,
            std::span<const std::unique_ptr<ServedSwitch>> switches) {
  for (const auto& device : devices) {
    const auto counters = device->counters();
    if (!counters.empty()) log::info("counters of {}: {}", device->place(), json_of(counters));
  }
  for (const auto& fabric : switches) {
    for (const ServedSwitch::Uplink& one : fabric->uplinks())
      log::info("counters of {}: {}", one.name, json_of(one.uplink->counters()));
  }
}

// Whether all workers have done something since it was asked last. They are never waited for.
class Pulse {
 public:
  explicit Pulse(engine::Workers& workers) : workers_(workers) { ask(); }
  bool beats() {
    if (answers_->load() < workers_.count()) return false;
    ask();
    return true;
  }

 private:
  void ask() {
    answers_ = std::make_shared<std::atomic<size_t>>(0);
    for (size_t i = 0; i < workers_.count(); ++i) {
      workers_.worker(i).post([answers = answers_] { answers->fetch_add(1); });
    }
  }
  engine::Workers& workers_;
  std::shared_ptr<std::atomic<size_t>> answers_;
};

// The devices that there are, and how they come to be served: here, or where another process has served them.
class Served {
 public:
  Served(engine::Workers& workers, user::Listener& listener, Service& service)
      : workers_(workers), listener_(listener), service_(service) {}
  ~Served() { listener_.stop(); }  // before the devices end
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;
  [[nodiscard]] std::span<const std::unique_ptr<ServedDevice>> devices() const { return devices_; }

  Parsed<void> open(std::span<const DeviceOptions> all) {
    for (const DeviceOptions& one : all) TRY(attach(*TRY(open(one))));
    return {};
  }
  // Devices that the other process does not have are new.
  Parsed<void> take_over(std::span<const DeviceOptions> all,
                         std::span<const std::unique_ptr<ServedSwitch>> switches, UpgradeTaker& from) {
    std::vector<DeviceOptions> fresh;
    for (DeviceOptions one : all) {
      if (!from.has(place_of(one))) {
        fresh.push_back(std::move(one));
        continue;
      }
      one.inherited = TRY(from.take_backing(place_of(one), one.type)).release();
      one.takes_over = true;
      TRY(open(one));
    }
    TRY(from.take_over({.devices = devices_, .switches = switches}, listener_));
    if (auto opened = open(fresh); !opened) log::error("{}", opened.error());
    return {};
  }

 private:
  Parsed<ServedDevice*> open(const DeviceOptions& one) {
    auto device = ServedDevice::open(one, workers_);
    if (!device) return std::unexpected(device.error());
    devices_.push_back(*std::move(device));
    return devices_.back().get();
  }
  Parsed<void> attach(ServedDevice& device) {
    if (auto reachable = device.attach(listener_, &service_); !reachable)
      return std::unexpected(fmt::format("{}: {}", device.place(), reachable.error().to_string()));
    return {};
  }

  engine::Workers& workers_;
  user::Listener& listener_;
  Service& service_;
  std::vector<std::unique_ptr<ServedDevice>> devices_;
};

// Tells the watchdog of a manager, if there is one, as long as the workers work.
class Heart {
 public:
  Heart(engine::Workers& workers, const Service& service) : service_(service), pulse_(workers) {}
  // Nothing: nobody wants to know.
  [[nodiscard]] std::optional<std::chrono::milliseconds> interval() const {
    const auto watchdog = service_.watchdog();
    if (!watchdog) return std::nullopt;
    return std::chrono::duration_cast<std::chrono::milliseconds>(*watchdog / 3);
  }
  void beat() {
    if (pulse_.beats()) service_.alive();
  }
  // For a main thread that is at something else.
  template <class Work>
  auto beat_during(Work&& work) {
    if (!interval()) return work();
    std::mutex mutex;
    std::condition_variable_any wait;
    const std::jthread beating([&](const std::stop_token& stop) {
      std::unique_lock lock(mutex);
      while (!stop.stop_requested()) {
        wait.wait_for(lock, stop, *interval(), [] { return false; });
        if (!stop.stop_requested()) beat();
      }
    });
    return work();
  }

 private:
  const Service& service_;
  Pulse pulse_;
};

// Does not return if the devices have moved.
void upgrade(const Serving& serving, const std::string& own_binary, const Service& service, Heart& heart,
             const signalfd_siginfo& signal) {
  const UpgradeRequest request = UpgradeRequest::of(signal);
  if (!request.mistake().empty()) return log::warning("{}", request.mistake());
  const UpgradeWish wish{.binary = request.binary().empty() ? own_binary : request.binary(),
                         .time_to_open = request.time_to_open()};
  const HandedOver handed = heart.beat_during([&] { return hand_over(serving, wish); });
  const bool moved = handed.outcome == HandedOver::Outcome::moved;
  request.answer(moved, handed.sentence);
  if (moved) {
    log::info("{}", handed.sentence);
    service.moved_to(handed.successor);
  } else {
    log::error("not upgraded: {}", handed.sentence);
  }
  // No destructor may run: they would hang up what is the other process's.
  if (handed.outcome != HandedOver::Outcome::stayed) std::_Exit(moved ? 0 : 1);
}

// Empty, or why these devices cannot move to another process.
std::string obstacle_in(const ServeConfig& config) {
  return config.process.restart_on_failure ? obstacle_when_supervised() : std::string();
}

// Nothing that has been inherited may be touched.
[[noreturn]] void give_up(UpgradeTaker& taker, const std::string& why) {
  taker.refuse(why);
  std::_Exit(fail(why));
}

// With a taker, the uplinks that the process before has are taken from there.
Parsed<std::vector<std::unique_ptr<ServedSwitch>>> open_switches(const ServeConfig& config,
                                                                 engine::Workers& workers,
                                                                 UpgradeTaker* from) {
  ServedSwitch::Inherited inherited;
  if (from != nullptr) {
    inherited = [from](const std::string& place) -> Parsed<UniqueFd> {
      if (!from->has(place)) return UniqueFd();
      return from->take_backing(place, uplink_type);
    };
  }
  std::vector<std::unique_ptr<ServedSwitch>> switches;
  for (const SwitchOptions& one : config.switches) {
    auto fabric = ServedSwitch::open(one, workers, inherited);
    if (!fabric) return std::unexpected(fmt::format("{}: {}", one.name, fabric.error()));
    switches.push_back(*std::move(fabric));
  }
  return switches;
}

int serve(const ServeConfig& config, const Arguments& arguments, Service& service) {
  const auto options = worker_options(config.process);
  if (!options) return fail(options.error());
  if (config.process.verbose) log::set_level(log::Level::debug);
  allow_many_fds();
  const std::string binary = own_binary();
  const auto termination = Termination::make({SIGUSR1, SIGUSR2});
  if (!termination) return fail(termination.error().to_string());
  auto workers = engine::Workers::start(*options);
  if (!workers) return fail(workers.error().to_string());
  std::optional<SuccessionUnderSupervisor> succession;
  if (config.process.restart_on_failure && arguments.take_over >= 0) succession.emplace();
  std::optional<UpgradeTaker> taker;
  if (arguments.take_over >= 0) {
    auto met = UpgradeTaker::meet(UniqueFd(arguments.take_over));
    if (!met) return fail(met.error());
    taker = *std::move(met);
  }
  const auto switches = open_switches(config, **workers, taker ? &*taker : nullptr);
  if (!switches && taker) give_up(*taker, switches.error());
  if (!switches) return fail(switches.error());
  // When a connection from --fd has ended there is nothing left to serve.
  auto listener =
      user::Listener::start({.finished = [] { ::kill(::getpid(), SIGTERM); }, .can_hand_over = true});
  if (!listener) return fail(listener.error().to_string());
  Served served(**workers, **listener, service);
  if (taker) {
    if (auto taken = served.take_over(config.devices, *switches, *taker); !taken)
      give_up(*taker, taken.error());
    if (succession) succession->complete();
  } else if (auto opened = served.open(config.devices); !opened) {
    return fail(opened.error());
  }
  const size_t count = served.devices().size();
  log::info("serving {} {}", count, count == 1 ? "device" : "devices");
  service.ready();
  Heart heart(**workers, service);
  const Serving serving{.devices = served.devices(),
                        .switches = *switches,
                        .listener = **listener,
                        .words = arguments.words,
                        .environment = service.environment_of_successor(),
                        .obstacle = obstacle_in(config)};
  termination->wait(
      {.on_hangup = [&] { refresh(served.devices()); },
       .on_report = [&] { report(served.devices(), *switches); },
       .on_upgrade =
           [&](const signalfd_siginfo& signal) { upgrade(serving, binary, service, heart, signal); },
       .interval = heart.interval(),
       .on_interval = [&] { heart.beat(); }});
  service.stopping();
  (*listener)->stop();
  return 0;
}

// The supervisor has the sockets, so that they outlive the servers.
int serve_supervised(const ServeConfig& config, const Arguments& arguments, Service& service) {
  for (const DeviceOptions& one : config.devices) {
    if (one.socket_path.empty() || service.has(one.socket_path)) continue;
    auto found = service.listening_at(one.socket_path);
    if (!found) return fail(fmt::format("{}: {}", one.socket_path, found.error().to_string()));
    if (std::optional<UniqueFd> socket = *std::move(found)) {
      service.give(one.socket_path, *std::move(socket));
      continue;
    }
    auto listening = user::listen_at(one.socket_path);
    if (!listening) return fail(fmt::format("{}: {}", one.socket_path, listening.error().to_string()));
    service.give(one.socket_path, *std::move(listening), Service::Origin::made);
  }
  const auto become = [&](const std::string& binary) {
    std::vector<std::string> words{"ringway", "serve"};
    words.insert(words.end(), arguments.words.begin(), arguments.words.end());
    log::error("{} cannot be started: {}", binary, service.become(binary, words));
  };
  const int status =
      supervise({.serve = [&] { return serve(config, arguments, service); }, .become = become});
  service.remove_made();
  return status;
}

int serve(const ServeConfig& config, const Arguments& arguments) {
  Service service = Service::from_environment();
  const bool supervises = config.process.restart_on_failure && arguments.take_over < 0;
  return supervises ? serve_supervised(config, arguments, service) : serve(config, arguments, service);
}

Parsed<ServeConfig> config_of(const Arguments& arguments) {
  if (!arguments.config.empty()) return read_serve_config(arguments.config);
  auto device = checked(arguments.device, arguments.device.type);
  if (!device) return std::unexpected(device.error());
  return ServeConfig{.process = arguments.process, .devices = {*std::move(device)}};
}

// A network device for each socket, all on one switch.
Parsed<ServeConfig> config_of_switch(const Arguments& arguments) {
  ServeConfig config{.process = arguments.process, .switches = {arguments.fabric}, .devices = {}};
  for (const std::string& uplink : arguments.uplinks)
    config.switches.front().uplinks.push_back({.port = uplink, .settings = {}});
  if (const std::string wrong = mistake_in(config.switches.front()); !wrong.empty())
    return std::unexpected("switch: " + wrong);
  if (const auto wrong = mistake_among(config.switches)) return std::unexpected("switch: " + wrong->mistake);
  for (const std::string& socket : arguments.sockets) {
    if (std::ranges::find(config.devices, socket, &DeviceOptions::socket_path) != config.devices.end())
      return std::unexpected(fmt::format("--socket-path: {} is there twice", socket));
    DeviceOptions options = arguments.device;
    options.type = "net";
    options.socket_path = socket;
    options.port = "switch:name=" + arguments.fabric.name;
    auto device = checked(std::move(options), socket);
    if (!device) return std::unexpected(device.error());
    config.devices.push_back(*std::move(device));
  }
  return config;
}

CLI::App* add_serve_switch(CLI::App& serve_app, Arguments& arguments) {
  CLI::App* app = serve_app.add_subcommand("switch", "serve network devices that one switch connects");
  app->add_option("--socket-path", arguments.sockets, "where a device is reached; once for each")->required();
  app->add_option("--uplink", arguments.uplinks,
                  "a port that is on the switch too: tap:name=tap0; any number");
  app->add_option("--queues", arguments.device.queues, "pairs of queues of each device");
  app->add_option("--mtu", arguments.device.mtu, "the MTU that drivers are told, 68 to 65535");
  app->add_option("--macs", arguments.fabric.macs, "addresses that are learned at most");
  app->add_option("--ageing", arguments.fabric.ageing, "seconds after which a silent address is forgotten");
  add_options(*app, arguments.process, process_option_table());
  return app;
}

}  // namespace

void add_serve(CLI::App& app, Run& run, const std::vector<std::string>& words) {
  auto arguments = std::make_shared<Arguments>();
  if (!words.empty()) arguments->words.assign(words.begin() + 1, words.end());
  std::erase_if(arguments->words, [](const std::string& word) { return word.starts_with(take_over_option); });
  CLI::App* serve_app = app.add_subcommand("serve", "serve devices to front-ends over vhost-user");
  serve_app->require_subcommand(0, 1);
  serve_app->add_option("--config", arguments->config, "serve the devices that FILE (TOML) describes");
  serve_app->add_option(take_over_option, arguments->take_over, "")->group("");  // for upgrades only
  for (const DeviceKind& kind : device_kinds()) {
    CLI::App* device = serve_app->add_subcommand(kind.name, kind.help);
    add_options(*device, arguments->device, common_option_table());
    add_options(*device, arguments->device, kind.options());
    add_options(*device, arguments->process, process_option_table());
    device->add_flag("--print-capabilities")->description("say as JSON what this back-end can do, and end");
  }
  const CLI::App* switch_app = add_serve_switch(*serve_app, *arguments);
  serve_app->final_callback([arguments, serve_app, switch_app, &run] {
    const auto devices = serve_app->get_subcommands();
    if (devices.empty() == arguments->config.empty()) {
      throw CLI::ValidationError("serve",
                                 "either a device (ringway serve blk ...) or --config=FILE is needed");
    }
    if (!devices.empty()) arguments->device.type = devices.front()->get_name();
    const bool is_switch = switch_app->parsed();
    run = [arguments, is_switch] {
      const auto config = is_switch ? config_of_switch(*arguments) : config_of(*arguments);
      return config ? serve(*config, *arguments) : fail(config.error());
    };
  });
}

std::optional<int> print_capabilities(const std::vector<std::string>& words) {
  const DeviceKind* kind = words.size() >= 2 && words[0] == "serve" ? find_device_kind(words[1]) : nullptr;
  if (kind == nullptr || std::ranges::find(words, "--print-capabilities") == words.end()) return std::nullopt;
  nlohmann::ordered_json capabilities = {{"type", kind->type}};
  if (!kind->features.empty()) capabilities["features"] = kind->features;
  fmt::print("{}\n", capabilities.dump(2));
  return 0;
}

}  // namespace ringway::tools
