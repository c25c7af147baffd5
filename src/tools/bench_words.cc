#include "ringway/tools/bench_words.h"

namespace ringway::tools {
namespace {

double micro(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1000; }

}  // namespace

std::string latency_words(const Histogram& latency) {
  std::string text = fmt::format("  latency in us: mean {:.2f}, min {:.2f}, max {:.2f}\n  ",
                                 latency.mean() / 1000, micro(latency.min()), micro(latency.max()));
  for (const double percent : shown_percentiles)
    text += fmt::format(" {}%: {:.2f}", percent, micro(latency.percentile(percent)));
  return text + '\n';
}

nlohmann::ordered_json latency_json(const Histogram& latency) {
  nlohmann::ordered_json json = {{"mean", latency.mean()}, {"min", latency.min()}, {"max", latency.max()}};
  for (const double percent : shown_percentiles)
    json["percentiles"][fmt::format("{}", percent)] = latency.percentile(percent);
  return json;
}

std::string cores_words(const std::optional<double>& cores) {
  return cores ? fmt::format("{:.1f} %", *cores * 100) : "unknown";
}

nlohmann::ordered_json or_null(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

}  // namespace ringway::tools
