// What main.cc knows of a subcommand: it adds itself to the command line and leaves what is to be run.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace ringway::tools {

// The exit status of the program.
using Run = std::function<int()>;

// `words`: the whole command line, which an upgrade gives to the new program.
void add_serve(CLI::App& app, Run& run, const std::vector<std::string>& words);
void add_probe(CLI::App& app, Run& run);
void add_bench(CLI::App& app, Run& run);
void add_bridge(CLI::App& app, Run& run);
void add_cuse(CLI::App& app, Run& run);
void add_proxy(CLI::App& app, Run& run);
void add_trace(CLI::App& app, Run& run);
void add_check(CLI::App& app, Run& run);
void add_upgrade(CLI::App& app, Run& run);

}  // namespace ringway::tools
