#include "ringway/tools/net_bench_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "ringway/tools/bench_words.h"

namespace ringway::tools {
namespace {

using nlohmann::ordered_json;

struct Rate {
  double packets = 0;  // per second
  double bits = 0;
};

Rate rate_of(const NetBenchResult& result, uint64_t packets, uint64_t bytes) {
  const double seconds = result.seconds();
  if (seconds <= 0) return {};
  return {.packets = static_cast<double>(packets) / seconds,
          .bits = static_cast<double>(bytes) * 8 / seconds};
}

// "64 bytes", "60 to 1500 bytes"
std::string size_words(const FrameSizes& sizes) {
  if (sizes.smallest() == sizes.largest()) return fmt::format("{} bytes", sizes.largest());
  return fmt::format("{} to {} bytes", sizes.smallest(), sizes.largest());
}

std::string ring_words(const NetBenchResult& result) {
  const NetFrontEndOptions& front_end = result.options.front_end;
  const RunOptions& run = result.options.run;
  return fmt::format("{} pair{} of {} rings of {} entries{}{}{}{}, buffers of {} bytes, {} thread{} {}",
                     front_end.queues, front_end.queues == 1 ? "" : "s",
                     front_end.packed ? "packed" : "split", front_end.ring_size,
                     front_end.mergeable ? ", mergeable" : "", front_end.in_order ? ", in order" : "",
                     front_end.indirect ? ", indirect" : "", front_end.event_idx ? ", event index" : "",
                     front_end.buffer_bytes, run.threads, run.threads == 1 ? "" : "s",
                     run.interrupts ? "sleeping" : "polling");
}

std::string side_words(std::string_view name, const Rate& rate, uint64_t packets) {
  return fmt::format("{:<9}{:.3f} Mpps, {:.2f} Gbit/s, {} frames\n", name, rate.packets / 1e6,
                     rate.bits / 1e9, packets);
}

std::string account_words(const NetBenchResult& result) {
  const NetAccount& account = result.account;
  std::string text = fmt::format(
      "account  {} frames sent, {} lost ({:.4f} %)", account.sent, account.lost(),
      account.sent == 0 ? 0
                        : 100.0 * static_cast<double>(account.lost()) / static_cast<double>(account.sent));
  if (result.options.verify) {
    text += fmt::format(", {} late, {} twice, {} changed; {} foreign", account.late, account.duplicates,
                        account.changed, account.foreign);
  }
  return text + '\n';
}

ordered_json side_json(const Rate& rate, uint64_t packets, uint64_t bytes) {
  return {{"packets", packets},
          {"bytes", bytes},
          {"packets_per_second", rate.packets},
          {"bits_per_second", rate.bits}};
}

ordered_json options_json(const NetBenchResult& result) {
  const NetBenchOptions& options = result.options;
  const NetFrontEndOptions& front_end = options.front_end;
  return {{"mode", net_mode_name(options.mode)},
          {"smallest", options.sizes.smallest()},
          {"largest", options.sizes.largest()},
          {"queues", front_end.queues},
          {"threads", options.run.threads},
          {"ring_size", front_end.ring_size},
          {"mtu", result.mtu},
          {"buffer", front_end.buffer_bytes},
          {"window", options.window},
          {"packed", front_end.packed},
          {"mergeable", front_end.mergeable},
          {"in_order", front_end.in_order},
          {"indirect", front_end.indirect},
          {"event_idx", front_end.event_idx},
          {"own_header", front_end.own_header},
          {"interrupt", options.run.interrupts},
          {"verify", options.verify},
          {"seed", options.seed}};
}

ordered_json account_json(const NetBenchResult& result) {
  const NetAccount& account = result.account;
  ordered_json json = {{"sent", account.sent}, {"received", account.received}};
  json["lost"] = result.expects() ? ordered_json(account.lost()) : ordered_json(nullptr);
  if (!result.options.verify) return json;
  json["late"] = account.late;
  json["duplicates"] = account.duplicates;
  json["changed"] = account.changed;
  json["foreign"] = account.foreign;
  return json;
}

}  // namespace

std::string net_bench_text(const NetBenchResult& result) {
  const NetTally& tally = result.tally;
  std::string text;
  for (const auto& each : result.back_ends) text += (text.empty() ? "" : " to ") + each.socket;
  text += fmt::format(": {}, frames of {}, {:.2f} s\n{}\n", net_mode_name(result.options.mode),
                      size_words(result.options.sizes), result.seconds(), ring_words(result));
  if (tally.sent > 0) text += side_words("sent", rate_of(result, tally.sent, tally.sent_bytes), tally.sent);
  if (tally.received > 0 || result.options.mode != NetMode::tx) {
    text += side_words("received", rate_of(result, tally.received, tally.received_bytes), tally.received);
  }
  if (tally.latency.count() > 0) text += latency_words(tally.latency);
  if (result.expects()) text += account_words(result);
  const auto& back_end = result.back_ends.front();
  text += fmt::format("cpu      driver {}, back-end {} ({}, pid {})\n", cores_words(result.cpu.driver),
                      cores_words(result.cpu.back_end), back_end.program.empty() ? "?" : back_end.program,
                      back_end.pid);
  text += fmt::format("signals  {} kicks, {} sleeps, {} turns\n", tally.kicks, tally.sleeps, tally.turns);
  if (result.interrupted) text += "interrupted: this is the result so far\n";
  return text;
}

std::string net_bench_json(const NetBenchResult& result) {
  const NetTally& tally = result.tally;
  ordered_json json;
  json["back_ends"] = ordered_json::array();
  for (const auto& each : result.back_ends) {
    json["back_ends"].push_back({{"socket", each.socket}, {"program", each.program}, {"pid", each.pid}});
  }
  json["options"] = options_json(result);
  json["seconds"] = result.seconds();
  json["sent"] = side_json(rate_of(result, tally.sent, tally.sent_bytes), tally.sent, tally.sent_bytes);
  json["received"] =
      side_json(rate_of(result, tally.received, tally.received_bytes), tally.received, tally.received_bytes);
  json["latency_ns"] = tally.latency.count() > 0 ? latency_json(tally.latency) : ordered_json(nullptr);
  json["account"] = account_json(result);
  json["cpu"] = {{"driver", or_null(result.cpu.driver)}, {"back_end", or_null(result.cpu.back_end)}};
  json["signals"] = {{"kicks", tally.kicks}, {"sleeps", tally.sleeps}, {"turns", tally.turns}};
  json["interrupted"] = result.interrupted;
  json["hung"] = result.hung;
  json["errors"] = result.errors;
  json["good"] = result.good();
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + '\n';
}

std::string net_progress_line(const Progress& progress) {
  return fmt::format("{} {:.0f} s: {:.3f} Mpps", progress.phase, progress.seconds, progress.rate / 1e6);
}

}  // namespace ringway::tools
