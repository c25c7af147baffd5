#include "ringway/check/hostile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>

#include "ringway/check/hostile_inputs.h"

namespace ringway::check {
namespace {

constexpr uint64_t usual = vhost::bit(vhost::VHOST_USER_PROTOCOL_F_MQ) |
                           vhost::bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                           vhost::bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) |
                           vhost::bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |
                           vhost::bit(vhost::VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                           vhost::bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
                           vhost::bit(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
constexpr milliseconds for_a_reaction{250};
constexpr milliseconds to_end{500};  // of a process that is dumping its core

// What the back-end did about it, as far as it shows.
std::string reaction(Assault& assault) {
  if (!assault.sent) return "";
  if (!assault.wire.stirs(for_a_reaction)) return "nothing is answered";
  const auto reply = assault.wire.receive();
  if (!reply && reply.error().fault == Fault::gone) return "the connection is closed";
  if (!reply) return "the answer is no message: " + reply.error().to_string();
  if (reply->payload.size() != sizeof(uint64_t))
    return fmt::format("{} bytes are answered", reply->payload.size());
  uint64_t value = 0;
  std::memcpy(&value, reply->payload.data(), sizeof value);
  return fmt::format("{:#x} is answered", value);
}

// Somebody else is served, as before.
Finding serves_others(Target& target, const Options& options) {
  Trial trial(target, *options.kind, options.patience);
  const auto served = [&]() -> Or<> {
    Rig* rig = TRY(trial.rig());
    if (!options.kind->has_request()) return rig->negotiate();
    TRY(rig->set_up());
    TRY(rig->serves(rig->ring()));
    TRY(rig->stop(rig->ring()));
    return {};
  }();
  return served ? Finding{} : Finding{Verdict::fail, served.error().detail};
}

// How it ends when a front-end has said nothing wrong and leaves: some do, as they may.
std::optional<Target::End> usual_end_of(Target& target, const Options& options) {
  (void)serves_others(target, options);
  std::this_thread::sleep_for(to_end);
  return target.end();
}

Finding attack(Target& target, const Options& options, const HostileInput& input,
               const std::optional<Target::End>& usual_end) {
  std::string did;
  std::string bytes;
  {
    Trial trial(target, *options.kind, options.patience);
    auto wire = trial.wire(usual);
    if (!wire) return {Verdict::not_testable, wire.error().detail};
    Assault assault{trial, **wire};
    const auto sent = input.send(assault);
    if (!sent && sent.error().verdict != Verdict::fail) return sent.error();
    did = sent ? reaction(assault) : sent.error().detail;
    bytes = trial.transcript();
  }
  Finding after = serves_others(target, options);
  if (after.verdict == Verdict::fail) std::this_thread::sleep_for(to_end);
  const auto end = target.end();
  if (end && end != usual_end) return {Verdict::fail, fmt::format("{} [{}]", end->how, bytes)};
  if (after.verdict == Verdict::fail)
    return {Verdict::fail, fmt::format("it serves nobody any more: {} [{}]", after.detail, bytes)};
  return {Verdict::pass, did};
}

// Whether it was this input: it is repeated alone. False: there is no back-end any more.
bool confirm(Target& target, const Options& options, const HostileInput& input,
             const std::optional<Target::End>& usual_end, Finding& finding) {
  const auto revived = [&] {
    return target.restart() && serves_others(target, options).verdict != Verdict::fail;
  };
  if (!revived()) return false;
  if (attack(target, options, input, usual_end).verdict == Verdict::fail) return revived();
  finding.detail += "; a fresh one survives it: an earlier input has done the damage";
  return true;
}

}  // namespace

std::vector<HostileRow> attack_back_end(Target& target, const Options& options, const TellHostile& tell) {
  std::vector<HostileInput> inputs = hostile_messages();
  std::ranges::move(hostile_memory(), std::back_inserter(inputs));
  std::ranges::move(hostile_rings(*options.kind), std::back_inserter(inputs));
  std::vector<HostileRow> rows;
  const auto usual_end = usual_end_of(target, options);
  bool gone = false;
  for (const HostileInput& input : inputs) {
    Finding finding = gone ? Finding{Verdict::not_testable, "it does not answer any more"}
                           : attack(target, options, input, usual_end);
    if (!gone && finding.verdict == Verdict::fail)
      gone = !confirm(target, options, input, usual_end, finding);
    rows.push_back({input.number, input.what, std::move(finding)});
    if (tell) tell(rows.back());
  }
  return rows;
}

}  // namespace ringway::check
