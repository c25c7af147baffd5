// ringway bench: drives a device behind a vhost-user socket without a virtual machine.
#include <CLI/CLI.hpp>

#include "ringway/tools/bench_options.h"

namespace ringway::tools {

void add_bench(CLI::App& app, Run& run) {
  CLI::App* const command = app.add_subcommand("bench", "measure a vhost-user back-end");
  command->require_subcommand(1);
  add_bench_blk(*command, run);
  add_bench_net(*command, run);
}

}  // namespace ringway::tools
