#include "ringway/tools/net_bench_run.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace ringway::tools {
namespace {

using Failure = std::unexpected<std::string>;
// Nobody has it: a frame to it goes wherever frames to strangers go.
constexpr net::Mac nobody{std::byte{0x02}, std::byte{0x52}, std::byte{0x57},
                          std::byte{0xff}, std::byte{0xff}, std::byte{0xfe}};

class NetBench {
 public:
  NetBench(const NetBenchOptions& options, const BenchWatch::Show& show) : options_(options), watch_(show) {}

  std::expected<NetBenchResult, std::string> run() {
    if (options_.seed == 0) options_.seed = any_seed();
    if (auto opened = open(); !opened) return Failure(std::move(opened).error());
    make_flows();
    make_jobs();
    note_setting();
    result_.cpu = watch_.measure(processes());
    finish();
    return std::move(result_);
  }

 private:
  std::expected<void, std::string> open() {
    options_.front_end.frame_bytes = std::max(options_.front_end.frame_bytes, options_.sizes.largest());
    auto near = NetFrontEnd::open(options_.front_end);
    if (!near) return Failure(std::move(near).error());
    near_ = *std::move(near);
    if (options_.peer.empty()) return {};
    NetFrontEndOptions other = options_.front_end;
    other.socket = options_.peer;
    auto far = NetFrontEnd::open(other);
    if (!far) return Failure(std::move(far).error());
    far_ = *std::move(far);
    return far_->greet();
  }

  [[nodiscard]] NetFrontEnd& receiving() const { return far_ ? *far_ : *near_; }
  [[nodiscard]] bool sends() const { return options_.mode != NetMode::rx; }
  [[nodiscard]] bool receives() const { return options_.mode != NetMode::tx; }
  [[nodiscard]] bool is_ping() const { return options_.mode == NetMode::ping; }

  void make_flows() {
    std::vector<FlowOptions> flows;
    for (uint16_t queue = 0; queue < options_.front_end.queues; ++queue) {
      flows.push_back({.source = near_->mac(),
                       .destination = receives() ? receiving().mac() : nobody,
                       .run = options_.seed,
                       .flow = queue,
                       .sizes = options_.sizes,
                       .mtu = std::min(near_->mtu(), receiving().mtu()),
                       .segmented = near_->segments()});
    }
    flows_ = std::make_unique<NetFlows>(flows);
  }

  void make_jobs() {
    const uint16_t queues = options_.front_end.queues;
    if (options_.window == 0) options_.window = receiving().room_for(options_.sizes.largest());
    if (is_ping()) options_.window = 1;
    std::vector<Drive::Part> parts;
    for (uint16_t queue = 0; queue < queues; ++queue) {
      const NetWork work{.transmitter = sends() ? &near_->transmitter(queue) : nullptr,
                         .receiver = receives() ? &receiving().receiver(queue) : nullptr,
                         .aside = far_ ? &near_->receiver(queue) : nullptr,
                         .window = sends() && receives() ? options_.window : 0,
                         .numbered = options_.verify || is_ping(),
                         .checked = options_.verify,
                         .timed = is_ping()};
      jobs_.push_back(std::make_unique<NetJob>(work, *flows_, queue, options_.seed));
      parts.push_back({.job = jobs_.back().get(), .calls = calls(queue)});
    }
    options_.run.complete(queues);
    drive_ = std::make_unique<Drive>(std::move(parts), options_.run.drive());
    watch_.look_after(*drive_, options_.run, [this] { return trouble(); });
  }

  [[nodiscard]] std::vector<const Signal*> calls(uint16_t queue) const {
    auto signals = near_->call_signals(queue);
    if (!far_) return signals;
    const auto others = far_->call_signals(queue);
    signals.insert(signals.end(), others.begin(), others.end());
    return signals;
  }

  [[nodiscard]] std::optional<std::string> trouble() const {
    if (auto sentence = near_->trouble()) return sentence;
    return far_ ? far_->trouble() : std::nullopt;
  }

  void note_setting() {
    options_.front_end = near_->options();
    result_.options = options_;
    result_.mtu = std::min(near_->mtu(), receiving().mtu());
    for (const NetFrontEnd* each : {near_.get(), far_.get()}) {
      if (each == nullptr) continue;
      result_.back_ends.push_back(
          {.socket = each->options().socket, .program = each->program(), .pid = each->pid()});
    }
  }

  [[nodiscard]] std::vector<pid_t> processes() const {
    std::vector<pid_t> all;
    for (const auto& each : result_.back_ends) all.push_back(each.pid);
    return all;
  }

  void finish() {
    for (const auto& job : jobs_) {
      result_.tally.add(job->counted());
      result_.account.add(job->account());
    }
    result_.interrupted = watch_.interrupted();
    result_.errors = watch_.errors();
    result_.hung = watch_.hung();
    for (const auto* each : {&near_, &far_}) {
      if (!*each || !result_.errors.empty()) continue;  // a back-end in trouble would make us wait
      const int64_t begin = now_ns();
      if (auto stopped = (*each)->stop(); !stopped) {
        result_.errors.push_back(std::move(stopped).error());
        result_.hung = options_.run.has_waited_since(begin);
      }
    }
  }

  NetBenchOptions options_;
  BenchWatch watch_;
  NetBenchResult result_;
  std::unique_ptr<NetFrontEnd> near_;
  std::unique_ptr<NetFrontEnd> far_;  // null: there is one back-end
  std::unique_ptr<NetFlows> flows_;
  std::vector<std::unique_ptr<NetJob>> jobs_;
  std::unique_ptr<Drive> drive_;
};

}  // namespace

std::string_view net_mode_name(NetMode mode) {
  static constexpr std::string_view names[] = {"tx", "rx", "loop", "pair", "ping"};
  return names[static_cast<size_t>(mode)];
}

std::expected<NetBenchResult, std::string> run_net_bench(const NetBenchOptions& options,
                                                         const BenchWatch::Show& show) {
  return NetBench(options, show).run();
}

}  // namespace ringway::tools
