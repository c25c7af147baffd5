// The tables of device_options.h as options of a command line. Main thread.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <span>
#include <string>
#include <variant>

#include "ringway/tools/device_options.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {

// `options` is what is set, and outlives the parsing.
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

}  // namespace ringway::tools
