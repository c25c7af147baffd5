// ringway bench net: drives a network device.
#include <CLI/CLI.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "ringway/ring/config.h"
#include "ringway/tools/bench_options.h"
#include "ringway/tools/command.h"
#include "ringway/tools/net_bench_report.h"
#include "ringway/tools/net_bench_run.h"

namespace ringway::tools {
namespace {

struct Options {
  NetBenchOptions bench;
  CommonBenchOptions common;
  std::vector<std::string> sockets;
  std::string size = "64";
};

// What CLI11 cannot check by itself. The error is a sentence.
Parsed<void> complete(Options& options) {
  NetBenchOptions& bench = options.bench;
  auto sizes = FrameSizes::parse(options.size);
  if (!sizes) return std::unexpected(sizes.error());
  bench.sizes = *std::move(sizes);
  bench.front_end.socket = options.sockets.front();
  const bool two = options.sockets.size() == 2;
  if (two) bench.peer = options.sockets.back();
  if (bench.mode == NetMode::pair && !two) return std::unexpected("--mode=pair needs two sockets");
  if (two && bench.mode != NetMode::pair && bench.mode != NetMode::ping) {
    return std::unexpected("two sockets are for --mode=pair or ping");
  }
  if (bench.verify && (bench.mode == NetMode::tx || bench.mode == NetMode::rx)) {
    return std::unexpected("--verify needs frames that arrive: --mode=loop, pair or ping");
  }
  return options.common.complete(bench.run);
}

int bench(Options& options) {
  if (const auto complete_options = complete(options); !complete_options)
    return bench_fails(complete_options.error());
  options.bench.front_end.patience =
      std::chrono::milliseconds(static_cast<int64_t>(options.bench.run.patience * 1000));
  const auto result = [&] {
    const LiveLine line(options.common, net_progress_line);
    return run_net_bench(options.bench, [&](const Progress& progress) { line.show(progress); });
  }();
  if (!result) return bench_fails(result.error());
  return end_bench(options.common.json ? net_bench_json(*result) : net_bench_text(*result), result->errors,
                   ending_of(*result));
}

constexpr const char* footer =
    "Modes: tx transmits whatever the back-end takes. rx receives what comes by itself: the far side must "
    "send,\n"
    "for example a tap with traffic, a file that is replayed, or another port of the same switch. loop "
    "expects its\n"
    "frames back (serve net --port=loop). pair sends from the first socket to the second (two ports of a "
    "switch).\n"
    "ping has one frame under way at a time and tells how long it takes: there and back with one socket, one "
    "way\n"
    "with two.";

}  // namespace

void add_bench_net(CLI::App& bench_command, Run& run) {
  auto options = std::make_shared<Options>();
  NetBenchOptions& own = options->bench;
  NetFrontEndOptions& front_end = own.front_end;
  CLI::App* const command = bench_command.add_subcommand("net", "measure a network device");
  command->footer(footer);
  static const std::map<std::string, NetMode> modes = [] {
    std::map<std::string, NetMode> map;
    for (const NetMode each : all_net_modes) map.emplace(net_mode_name(each), each);
    return map;
  }();
  command->add_option("SOCKET", options->sockets, "path of the back-end's socket; two of them with pair")
      ->required()
      ->expected(1, 2);
  command->add_option("--mode", own.mode, "what the driver does (tx)")
      ->transform(CLI::Transformer(modes, CLI::ignore_case).description(""))
      ->option_text("tx|rx|loop|pair|ping");
  command->add_option("--size", options->size, "bytes of a frame without checksum, or imix (64)")
      ->option_text("SIZE|imix");
  command->add_option("--queues", front_end.queues, "pairs of queues that are used (1)")
      ->check(CLI::Range(1, 128));
  command->add_option("--ring-size", front_end.ring_size, "entries of each ring (256)")
      ->check(CLI::Range(2U, ring::max_size));
  command->add_option("--mtu", front_end.mtu, "the MTU that the back-end is told (none)")
      ->check(CLI::Range(68, 65535));
  command
      ->add_option("--buffer", front_end.buffer_bytes,
                   "bytes of a receive buffer (2048, or what a frame needs)")
      ->check(CLI::Range(64, 1 << 17));
  command->add_option("--window", own.window, "frames under way to a receiver (what its ring has room for)")
      ->check(CLI::Range(1, 1 << 15));
  options->common.add_to(*command, own.run);
  command->add_flag("--packed", front_end.packed, "packed rings");
  command->add_flag("--mergeable,!--no-mergeable", front_end.mergeable,
                    "mergeable buffers where offered (yes)");
  command->add_flag("--in-order,!--no-in-order", front_end.in_order, "in order where offered (yes)");
  command->add_flag("--event-idx,!--no-event-idx", front_end.event_idx, "event index where offered (yes)");
  command->add_flag("--indirect", front_end.indirect, "indirect descriptors where offered (no)");
  command->add_flag("--own-header", front_end.own_header, "headers have descriptors of their own");
  command->add_flag("--huge-pages", front_end.huge_pages, "memory of 2 MiB pages");
  command->add_flag("--verify", own.verify, "number and check every frame: order, loss, duplicates, content");
  command->add_option("--seed", own.seed, "of what is in the frames");
  command->callback([options, &run] { run = [options] { return bench(*options); }; });
}

}  // namespace ringway::tools
