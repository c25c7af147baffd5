// A run of `ringway bench net`, and what was measured. The thread that calls run_net_bench() watches
// (bench_watch.h); the queues belong to the threads it starts.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/tools/bench_watch.h"
#include "ringway/tools/net_front_end.h"
#include "ringway/tools/net_job.h"

namespace ringway::tools {

enum class NetMode : uint8_t {
  tx,    // the driver transmits
  rx,    // it receives what the back-end has
  loop,  // what it transmits comes back
  pair,  // from one back-end, or port, to another
  ping,  // one frame at a time, there and back or from one to the other
};
inline constexpr NetMode all_net_modes[] = {NetMode::tx, NetMode::rx, NetMode::loop, NetMode::pair,
                                            NetMode::ping};
[[nodiscard]] std::string_view net_mode_name(NetMode mode);

struct NetBenchOptions {
  NetFrontEndOptions front_end;
  std::string peer;  // socket of the other back-end; empty: none
  RunOptions run;
  NetMode mode = NetMode::tx;
  FrameSizes sizes = FrameSizes::all(64);
  uint32_t window = 0;  // frames of a flow that may be under way; 0: as many as have room
  bool verify = false;
  uint64_t seed = 0;  // 0: any
};

struct NetBenchResult {
  struct BackEnd {
    std::string socket;
    std::string program;
    pid_t pid = 0;
  };
  NetBenchOptions options;  // as they were carried out
  std::vector<BackEnd> back_ends;
  uint32_t mtu = 0;    // bytes, as the back-ends tell it
  NetTally tally;      // of the measured phase, all queues
  NetAccount account;  // of all phases
  CpuUse cpu;
  bool interrupted = false;
  bool hung = false;                // what was waited for has not come in time, and the errors say what
  std::vector<std::string> errors;  // sentences; what is above is what was known then

  [[nodiscard]] double seconds() const { return static_cast<double>(tally.nanoseconds) / 1e9; }
  // Frames that are sent are expected to arrive.
  [[nodiscard]] bool expects() const { return options.mode != NetMode::tx && options.mode != NetMode::rx; }
  [[nodiscard]] bool good() const { return errors.empty() && (!options.verify || account.flawless()); }
};

// The error is a sentence: nothing could be measured.
std::expected<NetBenchResult, std::string> run_net_bench(const NetBenchOptions& options,
                                                         const BenchWatch::Show& show);

}  // namespace ringway::tools
