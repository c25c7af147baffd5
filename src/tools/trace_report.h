// TraceReport: what `ringway trace` tells of what passes, to its sinks: text or JSON, and packets. Owned by
// the tap's thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/tools/trace_judge.h"
#include "ringway/tools/trace_sink.h"
#include "ringway/tools/trace_talk.h"
#include "ringway/tools/trace_tap.h"

namespace ringway::tools {

class TraceReport final : public TapObserver {
 public:
  struct Options {
    const DeviceType* type = nullptr;  // null: guessed
    bool json = false;
    bool explain = false;
    std::chrono::milliseconds patience{5000};  // after which a reply is late
  };
  // Sinks outlive it; `pcap` may be null.
  TraceReport(Options options, TraceSink& text, TraceSink* pcap)
      : options_(options), text_(text), pcap_(pcap) {}

  void began(uint32_t session) override;
  void turned_away(const std::string& sentence) override;
  void saw(SeenMessage message) override;
  void ended(uint32_t session, std::optional<Side> first) override;
  std::optional<Clock::time_point> tick(Clock::time_point now) override;
  // When a sink has failed there is nothing to trace for.
  bool is_done() override;

 private:
  struct Session {
    Session(const DeviceType* type, std::chrono::milliseconds patience) : talk(type), judge(talk, patience) {}
    Talk talk;
    Judge judge;
  };
  void tell_event(uint32_t session, const char* event, const std::string& sentence);
  void tell(uint32_t session, const std::vector<Finding>& findings);

  const Options options_;
  TraceSink& text_;
  TraceSink* const pcap_;
  std::map<uint32_t, std::unique_ptr<Session>> sessions_;
};

}  // namespace ringway::tools
