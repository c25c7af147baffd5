#include "ringway/tools/trace_report.h"

#include <fmt/format.h>

#include <utility>

#include "ringway/tools/trace_format.h"
#include "ringway/tools/trace_pcap.h"

namespace ringway::tools {
namespace {

constexpr std::chrono::milliseconds look_at_sinks_after{50};

double since_epoch(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

}  // namespace

void TraceReport::tell_event(uint32_t session, const char* event, const std::string& sentence) {
  const auto now = std::chrono::system_clock::now();
  if (options_.json) {
    return text_.put(
        json_line({{"time", since_epoch(now)}, {"session", session}, {"event", event}, {"text", sentence}}));
  }
  text_.put(fmt::format("{} {} {}\n", clock_text(now), session, sentence));
}

void TraceReport::began(uint32_t session) {
  sessions_[session] = std::make_unique<Session>(options_.type, options_.patience);
  tell_event(session, "connected", "a front-end has connected");
}

void TraceReport::turned_away(const std::string& sentence) {
  tell_event(0, "turned away", "a front-end was turned away: " + sentence);
}

void TraceReport::saw(SeenMessage message) {
  Session& session = *sessions_.at(message.session);
  const auto answered = session.talk.follow(message);
  std::vector<Finding> findings;
  if (options_.explain) findings = session.judge.see(message, answered);
  const DeviceType* const type = session.talk.type();
  text_.put(options_.json ? json_line(message_json(message, type)) : message_text(message, type));
  tell(message.session, findings);
  if (pcap_ == nullptr) return;
  std::vector<std::string> comments;
  comments.reserve(findings.size());
  for (const Finding& finding : findings) comments.push_back(finding.text);
  pcap_->put(pcap_packet(message, comments));
}

void TraceReport::tell(uint32_t session, const std::vector<Finding>& findings) {
  for (const Finding& finding : findings)
    text_.put(options_.json ? json_line(finding_json(session, finding)) : finding_text(finding));
}

void TraceReport::ended(uint32_t session, std::optional<Side> first) {
  if (options_.explain) tell(session, sessions_.at(session)->judge.end(first, Clock::now()));
  sessions_.erase(session);
  const char* const who = !first                      ? "the connection was cut here"
                          : *first == Side::front_end ? "the front-end has left"
                                                      : "the back-end has left";
  tell_event(session, "ended", who);
}

std::optional<TapObserver::Clock::time_point> TraceReport::tick(Clock::time_point now) {
  std::optional<Clock::time_point> next;
  const auto no_later_than = [&next](Clock::time_point time) {
    if (!next || time < *next) next = time;
  };
  if (!text_.is_idle() || (pcap_ != nullptr && !pcap_->is_idle())) no_later_than(now + look_at_sinks_after);
  if (!options_.explain) return next;
  for (const auto& [number, session] : sessions_) {
    tell(number, session->judge.late(now));
    if (const auto late = session->judge.next_late()) no_later_than(*late);
  }
  return next;
}

bool TraceReport::is_done() { return text_.has_failed() || (pcap_ != nullptr && pcap_->has_failed()); }

}  // namespace ringway::tools
