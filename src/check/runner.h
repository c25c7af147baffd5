// Runner: puts one target to all requirements, or to some. Owned by one thread; returns when all is judged.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "ringway/check/kind.h"
#include "ringway/check/requirements.h"
#include "ringway/check/rig.h"
#include "ringway/check/target.h"

namespace ringway::check {

struct Row {
  const Requirement* requirement = nullptr;
  Finding finding;
  double seconds = 0;
};

struct Options {
  const Kind* kind = nullptr;
  std::set<unsigned> only;  // numbers; empty: all
  Patience patience;
  bool checks_life = true;  // that it still answers after each check
};

using Tell = std::function<void(const Row&)>;  // as each is judged

// Judges a back-end. An error: it does not answer as one.
Result<std::vector<Row>> check_back_end(Target& target, const Options& options, const Tell& tell = {});
// Judges what a front-end has said.
std::vector<Row> judge_front_end(const Conversation& conversation, const std::set<unsigned>& only = {});

// Whether a failure of it is a fault, and not a recommendation that is not followed.
[[nodiscard]] bool is_fault(const Row& row);

}  // namespace ringway::check
