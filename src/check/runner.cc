#include "ringway/check/runner.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <utility>

#include "ringway/check/trial.h"

namespace ringway::check {
namespace {

Finding finding_of(const Outcome& outcome) {
  return outcome ? Finding{Verdict::pass, *outcome} : outcome.error();
}

bool is_wanted(const std::set<unsigned>& only, const Requirement& requirement) {
  return only.empty() || only.contains(requirement.number);
}

Finding run_one(Target& target, const Options& options, Outcome (*check)(Trial&)) {
  Trial trial(target, *options.kind, options.patience);
  Finding finding = finding_of(check(trial));
  if (finding.verdict != Verdict::fail) return finding;
  if (const std::string bytes = trial.transcript(); !bytes.empty()) finding.detail += " [" + bytes + "]";
  return finding;
}

std::string half(std::string what, const Finding& finding) {
  what.append(": ").append(name_of(finding.verdict));
  return finding.detail.empty() ? what : what + ", " + finding.detail;
}

// The verdict of a requirement that is two rules: a failure of either; else what could be seen of it.
Finding joined(const Finding& requests, const Finding& frames) {
  if (requests.verdict == frames.verdict && requests.detail.empty() && frames.detail.empty()) return frames;
  const bool first = requests.verdict == Verdict::fail ||
                     (requests.verdict == Verdict::pass && frames.verdict != Verdict::fail);
  return {.verdict = first ? requests.verdict : frames.verdict,
          .detail = half("what it does", requests) + "; " + half("its messages", frames),
          .before_check = requests.before_check || frames.before_check};
}

// At the request seam, and on the wire if there is one.
Finding run_both(Target& target, const Options& options, const BackEndTest& test) {
  Finding finding{Verdict::not_testable, test.reason};
  if (test.on_requests != nullptr) finding = run_one(target, options, test.on_requests);
  if (test.on_frames == nullptr) return finding;
  if (target.has_frames()) {
    const Finding framed = run_one(target, options, test.on_frames);
    return test.on_requests == nullptr ? framed : joined(finding, framed);
  }
  const Finding unseen{Verdict::not_testable, "there are no messages here to be looked at"};
  return test.on_requests == nullptr ? unseen : joined(finding, unseen);
}

// About whether rings start: judged even where none does.
bool is_about_starting(const Requirement& requirement) {
  constexpr std::array numbers{8, 9, 30, 32, 34, 38, 39};
  return std::ranges::find(numbers, requirement.number) != numbers.end();
}

bool serves_requests(Target& target, const Options& options) {
  Trial trial(target, *options.kind, options.patience);
  const auto rig = trial.running();
  return rig && (*rig)->serves((*rig)->ring());
}

Result<> answers(Target& target) {
  auto lease = TRY(target.connect());
  TRY(vhost::call(lease->device(), vhost::GetFeatures{}));
  return {};
}

// Some back-ends end when their front-end leaves, as they may; each check needs one.
Result<> serves_one_after_another(Target& target, const Patience& patience) {
  TRY(answers(target));
  std::this_thread::sleep_for(patience.quiet);
  if (!answers(target)) return refused("it ends when its front-end leaves: say --restart");
  return {};
}

// A device that does not answer any more after a check has failed it, whatever the check saw.
Finding survived(Target& target, Finding finding) {
  const auto alive = answers(target);
  const auto end = target.end();
  if (end && end->crashed) return {Verdict::fail, end->how + ": " + finding.detail};
  if (alive) return finding;
  return {Verdict::fail,
          "it does not answer any more after this: " + alive.error().to_string() + ": " + finding.detail};
}

}  // namespace

bool is_fault(const Row& row) {
  return row.finding.verdict == Verdict::fail && row.requirement->level == Level::must;
}

Result<std::vector<Row>> check_back_end(Target& target, const Options& options, const Tell& tell) {
  if (options.checks_life) TRY(serves_one_after_another(target, options.patience));
  // What follows from one failure is not told of every other check too.
  Kind without_requests = *options.kind;
  if (!serves_requests(target, options)) without_requests.write = nullptr;
  Options for_others = options;
  for_others.kind = &without_requests;
  std::vector<Row> rows;
  bool gone = false;
  for (const Requirement& requirement : requirements()) {
    if (!is_wanted(options.only, requirement)) continue;
    const Options& present = is_about_starting(requirement) ? options : for_others;
    const auto begin = std::chrono::steady_clock::now();
    const BackEndTest& test = requirement.back_end;
    const bool is_seen = test.on_frames != nullptr || test.on_requests != nullptr;
    Finding finding = is_seen && gone ? Finding{Verdict::not_testable, "it does not answer any more"}
                                      : run_both(target, present, test);
    if (is_seen && !gone && options.checks_life) {
      finding = survived(target, std::move(finding));
      gone = finding.verdict == Verdict::fail && !answers(target);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    rows.push_back({&requirement, std::move(finding), took.count()});
    if (tell) tell(rows.back());
  }
  return rows;
}

std::vector<Row> judge_front_end(const Conversation& conversation, const std::set<unsigned>& only) {
  std::vector<Row> rows;
  for (const Requirement& requirement : requirements()) {
    if (!is_wanted(only, requirement)) continue;
    const FrontEndTest& test = requirement.front_end;
    Finding finding = test.judge != nullptr ? finding_of(test.judge(conversation))
                                            : Finding{Verdict::not_testable, test.reason};
    rows.push_back({&requirement, std::move(finding), 0});
  }
  return rows;
}

}  // namespace ringway::check
