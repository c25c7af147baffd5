// ringway proxy: a back-end that is another back-end, with less.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <set>
#include <string>

#include "ringway/base/log.h"
#include "ringway/tools/command.h"
#include "ringway/tools/proxy_device.h"
#include "ringway/tools/proxy_mask.h"
#include "ringway/tools/termination.h"

namespace ringway::tools {
namespace {

struct Options {
  std::string listen;
  std::string back_end;
  std::string mask;
  std::string mask_protocol;
  std::string features;
  std::string type;
  double timeout = 60;  // seconds
  bool verbose = false;
};

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway proxy: {}\n", sentence);
  return 1;
}

Parsed<vhost::Mask::Taken> taken_by(const Options& options) {
  const DeviceType* const type = options.type.empty() ? nullptr : find_device_type(options.type);
  vhost::Mask::Taken taken;
  if (!options.mask.empty()) {
    const auto bits = parse_features(options.mask, type);
    if (!bits) return std::unexpected("--mask: " + bits.error());
    taken.features = *bits;
  }
  if (!options.features.empty()) {
    const auto kept = parse_bits(options.features);
    if (!kept) return std::unexpected("--features: " + kept.error());
    taken.features |= all_features_but(*kept);
  }
  if (!options.mask_protocol.empty()) {
    const auto bits = parse_protocol_features(options.mask_protocol);
    if (!bits) return std::unexpected("--mask-protocol: " + bits.error());
    taken.capabilities = *bits;
  }
  taken.features = with_dependent_features(taken.features, type);
  return taken;
}

int proxy(const Options& options) {
  const auto taken = taken_by(options);
  if (!taken) return fail(taken.error());
  log::set_level(options.verbose ? log::Level::debug : log::Level::info);
  const auto termination = Termination::make();
  if (!termination) return fail(termination.error().to_string());
  ProxyDevice device(
      {.back_end = options.back_end,
       .taken = *taken,
       .reply_time_out = std::chrono::milliseconds(static_cast<int64_t>(options.timeout * 1000))});
  if (auto reached = device.reach_back_end(); !reached) return fail(reached.error());
  // Ends before the device does.
  auto listener = user::Listener::start();
  if (!listener) return fail(listener.error().to_string());
  if (auto listens = (*listener)->listen(options.listen, device); !listens)
    return fail(fmt::format("{}: {}", options.listen, listens.error().to_string()));
  log::info("{} is a proxy of {}", options.listen, options.back_end);
  termination->wait();
  (*listener)->stop();
  return 0;
}

}  // namespace

void add_proxy(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* const command =
      app.add_subcommand("proxy", "serve a back-end again, held back to fewer features");
  std::set<std::string> types;
  for (const DeviceType& type : device_types()) types.emplace(type.name);
  command->add_option("LISTEN", options->listen, "path of the socket to listen on")->required();
  command->add_option("BACKEND", options->back_end, "path of the back-end's socket")->required();
  command->add_option("--mask", options->mask, "features that are not offered: names or numbers, with commas")
      ->option_text("FEATURE,...");
  command
      ->add_option("--mask-protocol", options->mask_protocol,
                   "protocol features that are not offered, likewise")
      ->option_text("FEATURE,...");
  command->add_option("--features", options->features, "offer no other features than these bits, hexadecimal")
      ->option_text("HEX");
  command->add_option("--type", options->type, "what the device is, for names that several devices have")
      ->check(CLI::IsMember(types));
  command->add_option("--timeout", options->timeout, "seconds that the back-end has for each answer (60)")
      ->check(CLI::Range(0.01, 3600.0))
      ->option_text("SECONDS");
  command->add_flag("--verbose", options->verbose, "log what front-ends do");
  command->callback([options, &run] { run = [options] { return proxy(*options); }; });
}

}  // namespace ringway::tools
