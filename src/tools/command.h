// What main.cc knows of a subcommand: it adds itself to the command line and leaves what is to be run.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace ringway::tools {

// The exit status of the program.
using Run = std::function<int()>;

void add_serve(CLI::App& app, Run& run);
void add_probe(CLI::App& app, Run& run);
void add_bench(CLI::App& app, Run& run);
void add_bridge(CLI::App& app, Run& run);
void add_cuse(CLI::App& app, Run& run);
void add_proxy(CLI::App& app, Run& run);
void add_trace(CLI::App& app, Run& run);
void add_check(CLI::App& app, Run& run);

}  // namespace ringway::tools
