// ringway bench blk: drives a disk.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "ringway/ring/config.h"
#include "ringway/tools/bench_options.h"
#include "ringway/tools/bench_report.h"
#include "ringway/tools/bench_run.h"
#include "ringway/tools/parse.h"

namespace ringway::tools {
namespace {

constexpr uint64_t largest_request = 64 << 20;      // bytes
constexpr uint64_t most_guest_memory = 16UL << 30;  // bytes

struct Options {
  BenchOptions bench;
  CommonBenchOptions common;
  std::string block = "4k";
  std::string offset = "0";
  std::string size;
};

// What CLI11 cannot check by itself. The error is a sentence.
Parsed<void> complete(Options& options) {
  const auto block = parse_size(options.block);
  if (!block) return std::unexpected(block.error());
  if (*block == 0 || *block % 512 != 0 || *block > largest_request) {
    return std::unexpected("--bs must be a multiple of 512 bytes, and at most 64M");
  }
  BlkFrontEndOptions& front_end = options.bench.front_end;
  front_end.data_bytes = static_cast<uint32_t>(*block);
  if (*block * front_end.depth * front_end.queues > most_guest_memory) {
    return std::unexpected("--bs, --iodepth and --queues together need more than 16G of memory");
  }
  const auto offset = parse_size(options.offset);
  if (!offset) return std::unexpected(offset.error());
  options.bench.offset = *offset;
  if (!options.size.empty()) {
    const auto size = parse_size(options.size);
    if (!size) return std::unexpected(size.error());
    if (*size == 0) return std::unexpected("--size must not be 0");
    options.bench.size = *size;
  }
  return options.common.complete(options.bench.run);
}

int bench(Options& options) {
  if (const auto complete_options = complete(options); !complete_options)
    return bench_fails(complete_options.error());
  BlkFrontEndOptions& front_end = options.bench.front_end;
  front_end.patience = std::chrono::milliseconds(static_cast<int64_t>(options.bench.run.patience * 1000));
  const auto result = [&] {
    const LiveLine line(options.common, [&](const Progress& progress) {
      return progress_line(progress, front_end.data_bytes);
    });
    return run_bench(options.bench, [&](const Progress& progress) { line.show(progress); });
  }();
  if (!result) return bench_fails(result.error());
  return end_bench(options.common.json ? bench_json(*result) : bench_text(*result), result->errors,
                   ending_of(*result));
}

}  // namespace

void add_bench_blk(CLI::App& bench_command, Run& run) {
  auto options = std::make_shared<Options>();
  BenchOptions& own = options->bench;
  BlkFrontEndOptions& front_end = own.front_end;
  front_end.depth = 32;
  CLI::App* const command =
      bench_command.add_subcommand("blk", "measure a disk; what it holds is lost if anything is written");
  static const std::map<std::string, Pattern> patterns = [] {
    std::map<std::string, Pattern> map;
    for (const Pattern each :
         {Pattern::read, Pattern::write, Pattern::randread, Pattern::randwrite, Pattern::randrw}) {
      map.emplace(pattern_name(each), each);
    }
    return map;
  }();
  command->add_option("SOCKET", front_end.socket, "path of the back-end's socket")->required();
  command->add_option("--rw", own.pattern, "the pattern of access (randread)")
      ->transform(CLI::Transformer(patterns, CLI::ignore_case).description(""))
      ->option_text("read|write|randread|randwrite|randrw");
  command->add_option("--rwmixread", own.read_percent, "percentage of reads with randrw (50)")
      ->check(CLI::Range(0, 100));
  command->add_option("--bs", options->block, "bytes of one request (4k)")->option_text("SIZE");
  command->add_option("--iodepth", front_end.depth, "requests in flight on each queue (32)")
      ->check(CLI::Range(1, 32768));
  command->add_option("--queues", front_end.queues, "queues that are used (1)")->check(CLI::Range(1, 256));
  command->add_option("--offset", options->offset, "where on the disk (0)")->option_text("SIZE");
  command->add_option("--size", options->size, "how much of the disk; all of it, or 1G with --verify")
      ->option_text("SIZE");
  options->common.add_to(*command, own.run);
  command->add_option("--ring-size", front_end.ring_size, "entries of each ring (what the depth needs)")
      ->check(CLI::Range(2U, ring::max_size));
  command->add_flag("--packed", front_end.packed, "packed rings");
  command->add_flag("--indirect,!--no-indirect", front_end.indirect,
                    "indirect descriptors where offered (yes)");
  command->add_flag("--event-idx,!--no-event-idx", front_end.event_idx, "event index where offered (yes)");
  command->add_flag("--in-order", front_end.in_order, "negotiate that requests come back in order");
  command->add_flag("--huge-pages", front_end.huge_pages, "memory of 2 MiB pages");
  command->add_flag("--dirty-log", front_end.dirty_log, "have all writes to guest memory logged");
  command->add_flag("--inflight", front_end.inflight,
                    "have the back-end note what is in flight, where it can");
  command->add_flag("--reconnect", own.reconnect,
                    "when the back-end dies, go on with the next one at the socket; implies --inflight");
  command
      ->add_option("--witness", own.witness,
                   "with --verify: find writes that are done twice; the back-end needs the same option")
      ->option_text("FILE");
  command->add_flag("--verify", own.verify, "write patterns and check everything that is read");
  command->add_option("--seed", own.seed, "of random offsets and patterns");
  command->callback([options, &run] { run = [options] { return bench(*options); }; });
}

}  // namespace ringway::tools
