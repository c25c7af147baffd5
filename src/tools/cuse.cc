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
#include "ringway/tools/cuse_device.h"

namespace ringway::tools {
namespace {

struct Options {
  std::string name = "vhost-net-ringway";
  std::string device = "loopback";
  unsigned workers = 1;
  loop::Polling polling = loop::Polling::adaptive;
  bool verbose = false;
};

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway cuse: {}\n", sentence);
  return 1;
}

int cuse(const Options& options) {
  if (options.verbose) log::set_level(log::Level::debug);
  if (!preload::is_device_name(options.device)) {
    return fail(fmt::format("there is no device '{}'; there are: loopback, tap", options.device));
  }
  if (options.name.empty() || options.name.find('/') != std::string::npos) {
    return fail(fmt::format("'{}' cannot be a name in /dev", options.name));
  }
  if (::access(fmt::format("/dev/{}", options.name).c_str(), F_OK) == 0) {
    return fail(fmt::format("/dev/{} is there already", options.name));
  }
  if (::access("/dev/cuse", R_OK | W_OK) != 0) {
    return fail("/dev/cuse cannot be opened: load the module cuse, and be root");
  }
  auto workers = engine::Workers::start({.count = options.workers, .polling = options.polling});
  if (!workers) return fail(workers.error().to_string());
  return serve_by_cuse(options.name, [&] { return preload::make_device(options.device, **workers); });
}

const std::map<std::string, loop::Polling> pollings{{"adaptive", loop::Polling::adaptive},
                                                    {"always", loop::Polling::always},
                                                    {"never", loop::Polling::never}};

}  // namespace

void add_cuse(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* cuse_app =
      app.add_subcommand("cuse", "make a device of the kernel's vhost, served by this program");
  cuse_app->add_option("--name", options->name, "the device is /dev/NAME");
  cuse_app->add_option("--device", options->device, "what is behind it: loopback, or tap");
  cuse_app->add_option("--workers", options->workers, "threads that serve queues")
      ->check(CLI::Range(1, 1024));
  cuse_app->add_option("--poll", options->polling, "adaptive, always or never")
      ->transform(CLI::CheckedTransformer(pollings));
  cuse_app->add_flag("--verbose", options->verbose, "log what front-ends do");
  cuse_app->final_callback([options, &run] { run = [options] { return cuse(*options); }; });
}

}  // namespace ringway::tools
