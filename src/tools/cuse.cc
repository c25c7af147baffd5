// ringway cuse: a device node of the kernel's vhost, served by this program.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "ringway/base/log.h"
#include "ringway/engine/workers.h"
#include "ringway/preload/devices.h"
#include "ringway/tools/command.h"
#include "ringway/tools/command_options.h"
#include "ringway/tools/cuse_device.h"
#include "ringway/tools/device_kinds.h"
#include "ringway/tools/vdpa_device.h"

namespace ringway::tools {
namespace {

struct Options {
  std::string name;
  std::string device;  // vhost-net; empty: tap, or vhost-vdpa is wanted
  std::string kind;    // vhost-vdpa: one of device_kinds(); empty: vhost-net
  DeviceOptions vdpa;
  unsigned workers = 1;
  loop::Polling polling = loop::Polling::adaptive;
  bool verbose = false;
};

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway cuse: {}\n", sentence);
  return 1;
}

// Empty, or what is wrong.
std::string mistake(const Options& options) {
  if (options.name.empty() || options.name.find('/') != std::string::npos)
    return fmt::format("'{}' cannot be a name in /dev", options.name);
  if (options.kind.empty()) {
    if (preload::is_device_name(options.device)) return {};
    return fmt::format("there is no device '{}'; there are: tap, loopback", options.device);
  }
  if (!options.device.empty()) return "--device is for vhost-net";
  if (options.kind == "net" && options.vdpa.queues > 1)
    return "queues: a network device of vhost-vdpa has one pair";
  return find_device_kind(options.kind)->mistake(options.vdpa);
}

std::string obstacle(const Options& options) {
  if (::access(fmt::format("/dev/{}", options.name).c_str(), F_OK) == 0)
    return fmt::format("/dev/{} is there already", options.name);
  if (::access("/dev/cuse", R_OK | W_OK) != 0)
    return "/dev/cuse cannot be opened: load the module cuse, and be root";
  return {};
}

int serve_net(const Options& options, engine::Workers& workers) {
  return serve_by_cuse(options.name, {.fork_owner = VHOST_FORK_OWNER_KTHREAD},
                       [&] { return preload::make_device(options.device, workers); });
}

int serve_vdpa(const Options& options, engine::Workers& workers) {
  auto opened = find_device_kind(options.kind)->open(options.vdpa);
  if (!opened) return fail(opened.error());
  VdpaDevice device(std::move(opened->model), workers);
  return serve_by_cuse(options.name, {.family = kernel::Family::vdpa}, [&] { return device.open(); });
}

int cuse(Options options) {
  if (options.verbose) log::set_level(log::Level::debug);
  const bool is_vdpa = !options.kind.empty();
  if (options.name.empty()) options.name = is_vdpa ? "vhost-vdpa-ringway" : "vhost-net-ringway";
  if (!is_vdpa && options.device.empty()) options.device = "tap";
  for (const auto& problem : {mistake(options), obstacle(options)}) {
    if (!problem.empty()) return fail(problem);
  }
  auto workers = engine::Workers::start({.count = options.workers, .polling = options.polling});
  if (!workers) return fail(workers.error().to_string());
  return is_vdpa ? serve_vdpa(options, **workers) : serve_net(options, **workers);
}

const std::map<std::string, loop::Polling> pollings{{"adaptive", loop::Polling::adaptive},
                                                    {"always", loop::Polling::always},
                                                    {"never", loop::Polling::never}};

}  // namespace

void add_cuse(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* cuse_app =
      app.add_subcommand("cuse", "make a device of the kernel's vhost, served by this program");
  cuse_app->require_subcommand(0, 1);
  cuse_app->add_option("--name", options->name, "the device is /dev/NAME");
  cuse_app->add_option("--device", options->device, "vhost-net: what is behind it, tap or loopback");
  cuse_app->add_option("--workers", options->workers, "threads that serve queues")
      ->check(CLI::Range(1, 1024));
  cuse_app->add_option("--poll", options->polling, "adaptive, always or never")
      ->transform(CLI::CheckedTransformer(pollings));
  cuse_app->add_flag("--verbose", options->verbose, "log what front-ends do");
  for (const DeviceKind& kind : device_kinds()) {
    CLI::App* vdpa = cuse_app->add_subcommand(kind.name, fmt::format("vhost-vdpa: {}", kind.help));
    vdpa->add_option("--queues", options->vdpa.queues, "queues, of a network device pairs");
    add_options(*vdpa, options->vdpa, kind.options());
  }
  cuse_app->final_callback([options, cuse_app, &run] {
    const auto kinds = cuse_app->get_subcommands();
    if (!kinds.empty()) options->kind = kinds.front()->get_name();
    run = [options] { return cuse(*options); };
  });
}

}  // namespace ringway::tools
