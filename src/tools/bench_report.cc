#include "ringway/tools/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "ringway/tools/bench_words.h"

namespace ringway::tools {
namespace {

using nlohmann::ordered_json;

constexpr double mib = 1 << 20;

struct Rate {
  double iops = 0;
  double bandwidth = 0;  // bytes per second
};

Rate rate_of(const BenchResult& result, uint64_t requests) {
  const double seconds = result.seconds();
  if (seconds <= 0) return {};
  const double iops = static_cast<double>(requests) / seconds;
  return {.iops = iops, .bandwidth = iops * result.options.front_end.data_bytes};
}

std::string ring_words(const BenchResult& result) {
  const BlkFrontEndOptions& front_end = result.options.front_end;
  return fmt::format("{} {} ring{} of {} entries{}{}{}, {} thread{} {}", front_end.queues,
                     front_end.packed ? "packed" : "split", front_end.queues == 1 ? "" : "s",
                     front_end.ring_size, front_end.indirect ? ", indirect" : "",
                     front_end.event_idx ? ", event index" : "", front_end.in_order ? ", in order" : "",
                     result.options.run.threads, result.options.run.threads == 1 ? "" : "s",
                     result.options.run.interrupts ? "sleeping" : "polling");
}

void put_side(std::string& text, std::string_view name, const BenchResult& result, const Tally::Side& side) {
  if (side.done() + side.failed == 0) return;
  const Rate rate = rate_of(result, side.done());
  text += fmt::format("{:<9}{:.0f} IOPS, {:.1f} MiB/s, {} requests", name, rate.iops, rate.bandwidth / mib,
                      side.done());
  text += side.failed == 0 ? "\n" : fmt::format(", {} failed\n", side.failed);
  text += latency_words(side.latency);
}

void put_account(std::string& text, const Account& account) {
  text += fmt::format("verify   {} blocks written, {} checked, {} wrong", account.written, account.checked,
                      account.wrong());
  text += account.unsure == 0 ? "\n" : fmt::format(", {} not checked after failed writes\n", account.unsure);
  for (size_t i = 1; i < verdict_count; ++i) {
    if (account.verdicts[i] > 0)
      text += fmt::format("  {:>8}  {}\n", account.verdicts[i], describe(static_cast<Verdict>(i)));
  }
  for (size_t i = 0; i < std::min<uint64_t>(account.wrong(), Account::kept); ++i) {
    const Mismatch& each = account.first[i];
    text += fmt::format("  queue {}, offset {}: expected generation {}, found {}", each.queue,
                        each.finding.offset, each.expected_generation, describe(each.finding.verdict));
    const bool knows = each.finding.verdict > Verdict::zeros && each.finding.verdict != Verdict::foreign;
    text += knows ? fmt::format(" (offset {}, generation {})\n", each.finding.found.offset,
                                each.finding.found.generation)
                  : "\n";
  }
}

std::string reconnect_words(const BenchResult& result) {
  if (!result.options.verify) return fmt::format("reconnects {}\n", result.reconnects);
  return fmt::format("reconnects {}, {} blocks read again after them\n", result.reconnects,
                     result.looked_back);
}

void put_remarks(std::string& text, const BenchResult& result) {
  const Tally& tally = result.tally;
  if (tally.failed() > 0) {
    text +=
        fmt::format("{} requests failed, the first with status {}\n", tally.failed(), tally.first_bad_status);
  }
  if (result.unmeasured_failures > 0) {
    text += fmt::format("{} requests failed while filling or checking\n", result.unmeasured_failures);
  }
  if (tally.no_status > 0) text += fmt::format("{} requests came back without a status\n", tally.no_status);
  if (tally.overlong > 0)
    text += fmt::format("{} used lengths are larger than their buffers\n", tally.overlong);
  if (tally.short_used > 0)
    text += fmt::format("{} used lengths are smaller than what was read\n", tally.short_used);
  if (result.interrupted) text += "interrupted: this is the result so far\n";
}

ordered_json side_json(const BenchResult& result, const Tally::Side& side) {
  const Rate rate = rate_of(result, side.done());
  return {{"requests", side.done()},
          {"failed", side.failed},
          {"iops", rate.iops},
          {"bytes_per_second", rate.bandwidth},
          {"latency_ns", latency_json(side.latency)}};
}

ordered_json options_json(const BenchResult& result) {
  const BenchOptions& options = result.options;
  const BlkFrontEndOptions& front_end = options.front_end;
  return {{"rw", pattern_name(options.pattern)},
          {"bs", front_end.data_bytes},
          {"iodepth", front_end.depth},
          {"queues", front_end.queues},
          {"threads", options.run.threads},
          {"ring_size", front_end.ring_size},
          {"packed", front_end.packed},
          {"indirect", front_end.indirect},
          {"event_idx", front_end.event_idx},
          {"in_order", front_end.in_order},
          {"interrupt", options.run.interrupts},
          {"offset", options.offset},
          {"size", options.size},
          {"verify", options.verify},
          {"seed", options.seed}};
}

ordered_json account_json(const Account& account) {
  ordered_json json = {{"written", account.written},
                       {"checked", account.checked},
                       {"wrong", account.wrong()},
                       {"unsure", account.unsure}};
  static constexpr std::array names{"right", "untouched", "zeros", "stale",
                                    "newer", "misplaced", "torn",  "foreign"};
  static_assert(names.size() == verdict_count);
  for (size_t i = 0; i < verdict_count; ++i) json["verdicts"][names[i]] = account.verdicts[i];
  json["first"] = ordered_json::array();
  for (size_t i = 0; i < std::min<uint64_t>(account.wrong(), Account::kept); ++i) {
    const Mismatch& each = account.first[i];
    json["first"].push_back({{"queue", each.queue},
                             {"offset", each.finding.offset},
                             {"verdict", names[static_cast<size_t>(each.finding.verdict)]},
                             {"expected_generation", each.expected_generation},
                             {"found_offset", each.finding.found.offset},
                             {"found_generation", each.finding.found.generation}});
  }
  return json;
}

}  // namespace

std::string_view pattern_name(Pattern pattern) {
  static constexpr std::array<std::string_view, 5> names{"read", "write", "randread", "randwrite", "randrw"};
  return names[static_cast<size_t>(pattern)];
}

std::string bench_text(const BenchResult& result) {
  const BenchOptions& options = result.options;
  std::string text = fmt::format("{}: {} of {} bytes, {} in flight per queue, {:.2f} s\n",
                                 options.front_end.socket, pattern_name(options.pattern),
                                 options.front_end.data_bytes, options.front_end.depth, result.seconds());
  text += fmt::format("{}\n", ring_words(result));
  put_side(text, "reads", result, result.tally.reads);
  put_side(text, "writes", result, result.tally.writes);
  text += fmt::format("cpu      driver {}, back-end {} ({}, pid {})\n", cores_words(result.cpu.driver),
                      cores_words(result.cpu.back_end), result.program.empty() ? "?" : result.program,
                      result.pid);
  text += fmt::format("signals  {} kicks, {} sleeps, {} turns\n", result.tally.kicks, result.tally.sleeps,
                      result.tally.turns);
  if (options.verify) put_account(text, result.account);
  if (result.dirty_pages)
    text += fmt::format("log      {} pages of guest memory are marked\n", *result.dirty_pages);
  if (result.options.reconnect) text += reconnect_words(result);
  if (!result.options.witness.empty()) {
    text += fmt::format("witness  {} writes done, {} of them again after they were acknowledged\n",
                        result.executed, result.repeated);
  }
  put_remarks(text, result);
  return text;
}

std::string bench_json(const BenchResult& result) {
  ordered_json json;
  json["socket"] = result.options.front_end.socket;
  json["back_end"] = {{"program", result.program}, {"pid", result.pid}, {"capacity", result.capacity}};
  json["options"] = options_json(result);
  json["seconds"] = result.seconds();
  json["read"] = side_json(result, result.tally.reads);
  json["write"] = side_json(result, result.tally.writes);
  json["cpu"] = {{"driver", or_null(result.cpu.driver)}, {"back_end", or_null(result.cpu.back_end)}};
  json["signals"] = {
      {"kicks", result.tally.kicks}, {"sleeps", result.tally.sleeps}, {"turns", result.tally.turns}};
  json["remarks"] = {{"no_status", result.tally.no_status},
                     {"overlong", result.tally.overlong},
                     {"short_used", result.tally.short_used},
                     {"first_bad_status", result.tally.first_bad_status},
                     {"unmeasured_failures", result.unmeasured_failures}};
  json["dirty_pages"] = result.dirty_pages ? ordered_json(*result.dirty_pages) : ordered_json(nullptr);
  json["verify"] = result.options.verify ? account_json(result.account) : ordered_json(nullptr);
  json["reconnects"] = result.reconnects;
  json["looked_back"] = result.looked_back;
  json["witness"] = result.options.witness.empty()
                        ? ordered_json(nullptr)
                        : ordered_json{{"executed", result.executed}, {"repeated", result.repeated}};
  json["interrupted"] = result.interrupted;
  json["hung"] = result.hung;
  json["errors"] = result.errors;
  json["good"] = result.good();
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + '\n';
}

std::string progress_line(const Progress& progress, uint32_t block_bytes) {
  return fmt::format("{} {:.0f} s: {:.0f} IOPS, {:.1f} MiB/s", progress.phase, progress.seconds,
                     progress.rate, progress.rate * block_bytes / mib);
}

}  // namespace ringway::tools
