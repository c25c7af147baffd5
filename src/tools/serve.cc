#include "ringway/tools/serve.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "ringway/base/log.h"
#include "ringway/tools/manager.h"
#include "ringway/tools/serve_config.h"
#include "ringway/tools/served_device.h"
#include "ringway/tools/termination.h"
#include "ringway/tools/upgrade_giver.h"
#include "ringway/tools/upgrade_request.h"
#include "ringway/tools/upgrade_taker.h"

namespace ringway::tools {
namespace {

constexpr const char* take_over_option = "--take-over";

struct Arguments {
  std::string config;
  int take_over = -1;
  std::vector<std::string> words;  // after "serve"
  ProcessOptions process;
  DeviceOptions device;
};

template <class Options>
void add_options(CLI::App& app, Options& options, std::span<const Option<Options>> table) {
  for (const Option<Options>& option : table) {
    const std::string name = fmt::format("--{}", option.name);
    const auto* size = std::get_if<uint64_t Options::*>(&option.member);
    if (option.is_size) {
      uint64_t& bytes = options.**size;
      app.add_option_function<std::string>(
             name,
             [&bytes, name](const std::string& text) {
               const auto parsed = parse_size(text);
               if (!parsed) throw CLI::ValidationError(name, parsed.error());
               bytes = *parsed;
             },
             option.help)
          ->type_name("SIZE");
    } else if (const auto* flag = std::get_if<bool Options::*>(&option.member)) {
      app.add_flag(name, options.**flag, option.help);
    } else {
      std::visit([&](auto member) { app.add_option(name, options.*member, option.help); }, option.member);
    }
  }
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

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway serve: {}\n", sentence);
  return 1;
}

// What the user calls the disk.
std::string disk_of(const DeviceOptions& device) {
  if (!device.blk_file.empty()) return device.blk_file;
  return device.memory > 0 ? "memory" : "null";
}

void refresh(std::span<const std::unique_ptr<ServedDevice>> devices) {
  for (const auto& device : devices) {
    if (auto looked = device->refresh(); !looked) log::warning("{}", looked.error().to_string());
  }
}

// The devices that there are, and how they come to be served: here, or where another process has served them.
class Served {
 public:
  Served(engine::Workers& workers, user::Listener& listener) : workers_(workers), listener_(listener) {}
  [[nodiscard]] std::span<const std::unique_ptr<ServedDevice>> devices() const { return devices_; }

  Parsed<void> open(std::span<const DeviceOptions> all) {
    for (const DeviceOptions& one : all) TRY(attach(*TRY(open(one))));
    return {};
  }
  // Devices that the other process does not have are new.
  Parsed<void> take_over(std::span<const DeviceOptions> all, UpgradeTaker& from) {
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
    TRY(from.take_over(devices_, listener_));
    if (auto opened = open(fresh); !opened) log::error("{}", opened.error());
    return {};
  }

 private:
  Parsed<ServedDevice*> open(const DeviceOptions& one) {
    auto device = ServedDevice::open(one, workers_);
    if (!device) return std::unexpected(fmt::format("{}: {}", disk_of(one), device.error().to_string()));
    devices_.push_back(*std::move(device));
    return devices_.back().get();
  }
  Parsed<void> attach(ServedDevice& device) {
    if (auto reachable = device.attach(listener_); !reachable)
      return std::unexpected(fmt::format("{}: {}", device.place(), reachable.error().to_string()));
    return {};
  }

  engine::Workers& workers_;
  user::Listener& listener_;
  std::vector<std::unique_ptr<ServedDevice>> devices_;
};

// Does not return if the devices have moved.
void upgrade(const Serving& serving, const std::string& own_binary, const signalfd_siginfo& signal) {
  const UpgradeRequest request = UpgradeRequest::of(signal);
  if (!request.mistake().empty()) return log::warning("{}", request.mistake());
  const HandedOver handed =
      hand_over(serving, {.binary = request.binary().empty() ? own_binary : request.binary(),
                          .time_to_open = request.time_to_open()});
  const bool moved = handed.outcome == HandedOver::Outcome::moved;
  request.answer(moved, handed.sentence);
  if (moved) {
    log::info("{}", handed.sentence);
    tell_manager(fmt::format("MAINPID={}", handed.successor));
  } else {
    log::error("not upgraded: {}", handed.sentence);
  }
  // No destructor may run: they would hang up what is the other process's.
  if (handed.outcome != HandedOver::Outcome::stayed) std::_Exit(moved ? 0 : 1);
}

// Nothing that has been inherited may be touched.
[[noreturn]] void give_up(UpgradeTaker& taker, const std::string& why) {
  taker.refuse(why);
  std::_Exit(fail(why));
}

int serve(const ServeConfig& config, const Arguments& arguments) {
  const auto options = worker_options(config.process);
  if (!options) return fail(options.error());
  if (config.process.verbose) log::set_level(log::Level::debug);
  const std::string binary = own_binary();
  const auto termination = Termination::make({SIGUSR2});
  if (!termination) return fail(termination.error().to_string());
  auto workers = engine::Workers::start(*options);
  if (!workers) return fail(workers.error().to_string());
  // When a connection from --fd has ended there is nothing left to serve.
  auto listener =
      user::Listener::start({.finished = [] { ::kill(::getpid(), SIGTERM); }, .can_hand_over = true});
  if (!listener) return fail(listener.error().to_string());
  Served served(**workers, **listener);
  if (arguments.take_over >= 0) {
    auto taker = UpgradeTaker::meet(UniqueFd(arguments.take_over));
    if (!taker) return fail(taker.error());
    if (auto taken = served.take_over(config.devices, *taker); !taken) give_up(*taker, taken.error());
  } else if (auto opened = served.open(config.devices); !opened) {
    return fail(opened.error());
  }
  const size_t count = served.devices().size();
  log::info("serving {} {}", count, count == 1 ? "device" : "devices");
  const Serving serving{.devices = served.devices(), .listener = **listener, .words = arguments.words};
  termination->wait([&] { refresh(served.devices()); },
                    [&](const signalfd_siginfo& signal) { upgrade(serving, binary, signal); });
  (*listener)->stop();
  return 0;
}

Parsed<ServeConfig> config_of(const Arguments& arguments, bool is_device) {
  if (!is_device) return read_serve_config(arguments.config);
  auto device = checked(arguments.device, "blk");
  if (!device) return std::unexpected(device.error());
  return ServeConfig{.process = arguments.process, .devices = {*std::move(device)}};
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
  CLI::App* blk = serve_app->add_subcommand("blk", "serve a disk");
  add_options(*blk, arguments->device, device_option_table());
  add_options(*blk, arguments->process, process_option_table());
  blk->add_flag("--print-capabilities")->description("say as JSON what this back-end can do, and end");
  serve_app->final_callback([arguments, serve_app, blk, &run] {
    const bool is_device = blk->parsed();
    if (is_device == !arguments->config.empty()) {
      throw CLI::ValidationError("serve",
                                 "either a device (ringway serve blk ...) or --config=FILE is needed");
    }
    run = [arguments, is_device] {
      const auto config = config_of(*arguments, is_device);
      return config ? serve(*config, *arguments) : fail(config.error());
    };
  });
}

std::optional<int> print_capabilities(const std::vector<std::string>& words) {
  const bool of_blk = words.size() >= 2 && words[0] == "serve" && words[1] == "blk";
  if (!of_blk || std::ranges::find(words, "--print-capabilities") == words.end()) return std::nullopt;
  const nlohmann::ordered_json capabilities = {{"type", "block"}, {"features", {"blk-file", "read-only"}}};
  fmt::print("{}\n", capabilities.dump(2));
  return 0;
}

}  // namespace ringway::tools
