// Requirements: every normative requirement of the vhost-user specification, with its number, and by which
// check it is seen from outside, or why it cannot be. Immutable; any thread. The numbers are those of
// docs/robustness.md, part C.
#pragma once

#include <cstdint>
#include <span>

#include "ringway/check/finding.h"

namespace ringway::check {

class Trial;
class Conversation;

enum class Level : uint8_t { must, should, may };

// How back-ends are tested: by frames, at the request seam, or not, for a reason.
struct BackEndTest {
  Outcome (*on_frames)(Trial&) = nullptr;
  Outcome (*on_requests)(Trial&) = nullptr;
  const char* reason = "";
};

// How front-ends are judged: by what they sent and did in a conversation, or not, for a reason.
struct FrontEndTest {
  Outcome (*judge)(const Conversation&) = nullptr;
  const char* reason = "";
};

struct Requirement {
  uint16_t number = 0;
  Level level = Level::must;
  const char* sentence = "";
  const char* section = "";  // of the specification
  BackEndTest back_end;
  FrontEndTest front_end;
};

// In order of their numbers, from 1, without gaps.
[[nodiscard]] std::span<const Requirement> requirements();
inline constexpr uint16_t requirement_count = 146;

}  // namespace ringway::check
