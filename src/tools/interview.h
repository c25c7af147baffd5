// Interview: asks a back-end what it is, without starting it. Owned by one thread; returns when all is
// answered or late. vhost-user "Communication".
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <string>

#include "ringway/tools/findings.h"

namespace ringway::tools {

struct InterviewOptions {
  std::string socket;
  std::chrono::milliseconds patience{5000};  // for each answer
  const DeviceType* type = nullptr;          // null: it is guessed
  bool hostile = false;  // also ask what a good back-end refuses, and a bad one may not survive
};

// The error is a sentence for the user: there is no back-end there, or it does not talk.
std::expected<Findings, std::string> interview(const InterviewOptions& options);

}  // namespace ringway::tools
