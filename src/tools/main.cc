// The program: one subcommand, one file beside this one.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/base/failpoint.h"
#include "ringway/tools/command.h"
#include "ringway/tools/serve.h"

namespace {

// Installed under this name the program is a back-end by the conventions of vhost-user: options, no
// subcommand.
constexpr std::string_view backend_prefix = "vhost-user-";

std::vector<std::string> arguments(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  std::string_view name = argv[0];
  name.remove_prefix(name.rfind('/') + 1);
  if (name.starts_with(backend_prefix)) {
    words.insert(words.begin(), {"serve", std::string(name.substr(backend_prefix.size()))});
  }
  return words;
}

int run(std::vector<std::string> words) {
  if (const auto status = ringway::tools::print_capabilities(words)) return *status;
  CLI::App app("vhost: serve, probe and measure virtio devices outside the virtual machine monitor",
               "ringway");
  app.set_version_flag("--version", RINGWAY_VERSION);
  app.require_subcommand(1);
  ringway::tools::Run chosen;
  ringway::tools::add_serve(app, chosen, words);
  ringway::tools::add_probe(app, chosen);
  ringway::tools::add_bench(app, chosen);
  ringway::tools::add_bridge(app, chosen);
  ringway::tools::add_cuse(app, chosen);
  ringway::tools::add_proxy(app, chosen);
  ringway::tools::add_trace(app, chosen);
  ringway::tools::add_check(app, chosen);
  ringway::tools::add_upgrade(app, chosen);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them last first
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return chosen();
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  if (const auto armed = ringway::arm_failpoint(); !armed) {
    std::fprintf(stderr, "ringway: %s\n", armed.error().what);
    return 2;
  }
  try {
    return run(arguments(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ringway: %s\n", error.what());
    return 1;
  }
}
