#include "ringway/tools/serve.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>

#include "ringway/base/log.h"
#include "ringway/tools/file_limit.h"
#include "ringway/tools/serve_config.h"
#include "ringway/tools/served_device.h"
#include "ringway/tools/termination.h"

namespace ringway::tools {
namespace {

struct Arguments {
  std::string config;
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

// What the user calls the disk, and the place where it is served.
std::string disk_of(const DeviceOptions& device) {
  if (!device.blk_file.empty()) return device.blk_file;
  return device.memory > 0 ? "memory" : "null";
}

std::string end_of(const DeviceOptions& device) {
  if (!device.socket_path.empty()) return device.socket_path;
  return device.connect.empty() ? fmt::format("fd {}", device.fd) : device.connect;
}

void refresh(const std::vector<std::unique_ptr<ServedDevice>>& devices) {
  for (const auto& device : devices) {
    if (auto looked = device->refresh(); !looked) log::warning("{}", looked.error().to_string());
  }
}

int serve(const ServeConfig& config) {
  const auto options = worker_options(config.process);
  if (!options) return fail(options.error());
  if (config.process.verbose) log::set_level(log::Level::debug);
  allow_many_fds();
  const auto termination = Termination::make();
  if (!termination) return fail(termination.error().to_string());
  auto workers = engine::Workers::start(*options);
  if (!workers) return fail(workers.error().to_string());
  std::vector<std::unique_ptr<ServedDevice>> devices;
  // Ends before the devices do. When a connection from --fd has ended there is nothing left to serve.
  auto listener = user::Listener::start({.finished = [] { ::kill(::getpid(), SIGTERM); }});
  if (!listener) return fail(listener.error().to_string());
  for (const DeviceOptions& one : config.devices) {
    auto device = ServedDevice::open(one, **workers);
    if (!device) return fail(fmt::format("{}: {}", disk_of(one), device.error().to_string()));
    if (auto reachable = (*device)->attach(**listener); !reachable) {
      return fail(fmt::format("{}: {}", end_of(one), reachable.error().to_string()));
    }
    devices.push_back(*std::move(device));
  }
  log::info("serving {} {}", devices.size(), devices.size() == 1 ? "device" : "devices");
  termination->wait([&] { refresh(devices); });
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

void add_serve(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* serve_app = app.add_subcommand("serve", "serve devices to front-ends over vhost-user");
  serve_app->require_subcommand(0, 1);
  serve_app->add_option("--config", arguments->config, "serve the devices that FILE (TOML) describes");
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
      return config ? serve(*config) : fail(config.error());
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
