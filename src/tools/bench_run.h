// A run of `ringway bench blk`: its phases and what was measured. The thread that calls run_bench() watches
// (bench_watch.h); the queues belong to the threads it starts.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "ringway/tools/bench_watch.h"
#include "ringway/tools/blk_front_end.h"
#include "ringway/tools/blk_job.h"
#include "ringway/tools/ledger.h"

namespace ringway::tools {

enum class Pattern : uint8_t { read, write, randread, randwrite, randrw };

struct BenchOptions {
  BlkFrontEndOptions front_end;
  RunOptions run;
  Pattern pattern = Pattern::randread;
  unsigned read_percent = 50;  // with randrw
  uint64_t offset = 0;         // bytes: where on the disk
  uint64_t size = 0;           // bytes: how much of it; 0: all, or with `verify` at most a gibibyte
  bool verify = false;
  bool reconnect = false;  // go on with the next back-end at the socket when one dies
  std::string
      witness;        // with `verify`: the file in which the back-end tells what it does (backing/witness.h)
  uint64_t seed = 0;  // 0: any
};

struct BenchResult {
  BenchOptions options;   // as they were carried out
  uint64_t capacity = 0;  // bytes
  std::string program;    // of the back-end
  pid_t pid = 0;
  Tally tally;                          // of the measured phase, all queues
  Account account;                      // with `verify`: of all phases
  std::optional<uint64_t> dirty_pages;  // with a dirty log: marked in the end
  uint64_t unmeasured_failures = 0;     // failed requests while filling and checking
  CpuUse cpu;
  uint64_t reconnects = 0;
  uint64_t looked_back = 0;  // blocks that were chosen to be read again after them
  uint64_t executed = 0;     // writes that the back-end witnessed
  uint64_t repeated = 0;     // of these, after they were acknowledged
  bool interrupted = false;
  bool hung = false;                // what was waited for has not come in time, and the errors say what
  std::vector<std::string> errors;  // sentences; what is above is what was known then

  [[nodiscard]] double seconds() const { return static_cast<double>(tally.nanoseconds) / 1e9; }
  [[nodiscard]] bool good() const {
    return errors.empty() && tally.failed() == 0 && unmeasured_failures == 0 && account.wrong() == 0 &&
           repeated == 0;
  }
};

// The error is a sentence: nothing could be measured.
std::expected<BenchResult, std::string> run_bench(BenchOptions options, const BenchWatch::Show& show);

}  // namespace ringway::tools
